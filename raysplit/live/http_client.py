"""A live law over HTTP, for jobs that are on no Ray cluster: the standard library is all it takes."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from raysplit.errors import RunError, TableError
from raysplit.live.answers import Accepted, GoOn, LawStamp
from raysplit.runs import Observation

_SCHEMA_VERSION = 1


class HttpClient:
    """The part of a live law that a training job needs, at the address that `raysplit serve` prints."""

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = 10.0) -> None:
        """Nothing is asked yet.

        Args:
            url: of the server, such as ``http://127.0.0.1:8265``.
            token: that the server was started with; needed to report.
            timeout_seconds: of one request.

        Raises:
            RunError: the address is none of HTTP.
        """
        if not url.startswith(("http://", "https://")):
            raise RunError(f"url must begin with http:// or https://, got {url!r}")
        self._url, self._token, self._timeout = url.rstrip("/"), token, timeout_seconds

    def observe(self, observations: Sequence[Observation]) -> Accepted:
        """Report observations; they are on disk when this returns.

        Raises:
            TableError: one is impossible, of an unknown domain or contradicts a known one; nothing was stored.
            RunError: the server cannot be reached, refuses the token, or could not store them.
        """
        rows = [_row(observation) for observation in observations]
        return Accepted(**self._post("/v1/observations", {"schema_version": _SCHEMA_VERSION, "observations": rows}))

    def should_go_on(self, observation: Observation) -> GoOn:
        """Whether a run is worth its next tokens; nothing is stored.

        Raises:
            TableError: the observation is impossible, or of an unknown domain.
            RunError: the server cannot be reached, or refuses the token.
        """
        said = self._post("/v1/should-go-on", _row(observation))
        stamp = said.get("law")
        law = LawStamp(**{**stamp, "forms": tuple(stamp["forms"])}) if stamp else None
        return GoOn(go_on=said["go_on"], why=said["why"], law=law)

    def _post(self, path: str, body: object) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                said = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                message = f"{self._url}: {_message(error)}"
            # What is wrong with the rows stays wrong; a server or a token may be mended.
            raise (TableError if error.code in (400, 409, 413, 422) else RunError)(message) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise RunError(f"{self._url}: the live law cannot be reached: {reason}") from error
        if not isinstance(said, dict):
            raise RunError(f"{self._url}{path}: answers with no object; is this a live law?")
        return said


def _row(observation: Observation) -> dict[str, object]:
    fields = ((name, getattr(observation, name)) for name in Observation.__dataclass_fields__)
    return {name: value for name, value in fields if value == value}  # JSON has no NaN


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP {error.code} {error.reason}"
