"""Where Optuna keeps its trials: a SQLite file in the run folder, or any database that SQLAlchemy reaches."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysplit.errors import RunError
from raysplit.space import Space

_DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}
"""Packages of the drivers whose modules have other names."""
_SECRET = re.compile(r"([?&;]\w*(?:pass|pwd|secret|token|odbc_connect)\w*=)[^&\s\"']*", re.IGNORECASE)
"""Query parameters that hold a password: ``password``, ``sslpassword``, or ODBC's whole connection string."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyStore:
    """The studies of one run in a database."""

    storage: Any
    """Optuna's storage object."""
    url: str
    """URL of the database, its password masked."""
    prefix: str = ""
    """Stands before the names of the run's studies in a database that runs share."""


def open_store(space: Space, *, default: Path, run_name: str) -> StudyStore:
    """Open the database that a space names, else a SQLite file at ``default``.

    Raises:
        RunError: the database cannot be used, or its URL names a variable that is not set.
    """
    assert space.tuning is not None
    named = space.tuning.storage
    url = storage_url(named, default=default)
    return StudyStore(storage=open_storage(url), url=masked(url), prefix="" if named is None else f"{run_name} ")


def storage_url(url: str | None, *, default: Path) -> str:
    """The URL of Optuna's database, with ``${NAME}`` replaced by that environment variable.

    Raises:
        RunError: a variable that the URL names is not set.
    """
    if url is None:
        return f"sqlite:///{default}"
    for name in re.findall(r"\$\{(\w+)\}", url):
        if name not in os.environ:
            raise RunError(f"tuning.storage: the environment variable {name} is not set")
    return re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], url)


def masked(url: str) -> str:
    """A database URL, or a text that holds one, without the passwords before the host and in the query."""
    return _SECRET.sub(r"\1***", re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url))


def open_storage(url: str) -> Any:
    """Optuna's storage at a SQLAlchemy URL; Optuna makes its tables where there are none.

    Raises:
        RunError: the text is no URL, its driver is not installed, or the database cannot be reached.
    """
    import optuna
    import sqlalchemy.exc

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.storages.RDBStorage(url)
    except ImportError as error:
        module = getattr(error.__cause__ or error, "name", None) or "of this database"
        package = _DRIVERS.get(module, module)
        raise RunError(f"tuning.storage: {masked(url)} needs the package {package}; pip install {package!r}") from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise RunError(f"tuning.storage: {masked(url)}: cannot be used: {reason}") from error
