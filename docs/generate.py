"""The pages of the reference, written from the code itself, and the notebooks, from their scripts.

    .venv/bin/python -m docs.generate            # writes them; run it after a change of schema, commands or messages
    .venv/bin/python -m docs.generate --check    # status 1 and their names where one is out of date

Each page begins with a line that says so; a test keeps them up to date.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from docs.generators.commands import commands
from docs.generators.configuration import configuration
from docs.generators.messages import messages
from docs.generators.notebooks import as_notebook
from docs.generators.reference import http_reference, python_reference

REPOSITORY = Path(__file__).parents[1]
PAGES: dict[str, Callable[[], str]] = {
    "docs/configuration.md": configuration,
    "docs/cli.md": commands,
    "docs/http-reference.md": http_reference,
    "docs/python.md": python_reference,
    "docs/messages.md": messages,
}
NOTEBOOKS = ("notebooks/from_wandb", "notebooks/live_questions")
_MADE = "<!-- Made by `python -m docs.generate`: change the code, not this page. -->\n\n"


def made() -> dict[str, str]:
    """What each file that is written has to be, by its path in the repository."""
    pages = {page: _MADE + make().rstrip() + "\n" for page, make in PAGES.items()}
    scripts = {f"{name}.ipynb": (REPOSITORY / f"{name}.py").read_text("utf-8") for name in NOTEBOOKS}
    return pages | {notebook: as_notebook(script) for notebook, script in scripts.items()}


def out_of_date() -> dict[str, str]:
    """Those that are not as the code has them, with what they have to be."""
    return {path: content for path, content in made().items() if _written(REPOSITORY / path) != content}


def _written(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Write nothing.")
    is_check = parser.parse_args().check
    stale = out_of_date()
    for path, content in stale.items():
        if not is_check:
            (REPOSITORY / path).write_text(content, encoding="utf-8")
        print(f"{path}: {'out of date' if is_check else 'written'}")
    sys.exit(1 if is_check and stale else 0)


if __name__ == "__main__":
    main()
