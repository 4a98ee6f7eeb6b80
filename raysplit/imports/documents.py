"""JSON and YAML that tools keep beside their runs: one mapping a file or a line; a damaged one is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from raysplit.errors import TableError
from raysplit.files import open_bytes
from raysplit.tables.limits import read_characters


def read_json(path: Path) -> dict[str, Any]:
    """Read a file with one JSON object.

    Raises:
        TableError: the file cannot be read, is empty or cut short, or holds no JSON object.
    """
    text = read_characters(path)
    if not text.strip():
        raise TableError(f"{path}: is empty")
    try:
        return parse_object(text)
    except ValueError as error:
        raise TableError(f"{path}: is damaged or cut short: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file with one YAML mapping.

    Raises:
        TableError: the file cannot be read, is damaged, or holds no mapping.
    """
    try:
        found = yaml.safe_load(read_characters(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TableError(f"{path}: is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise TableError(f"{path}: {'is empty' if found is None else 'holds no mapping'}")
    return found


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(line number, object) of each line that is not blank; None in place of a damaged object.

    Raises:
        TableError: the file cannot be read.
    """
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object_or_none(line)
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from error


def _object_or_none(line: bytes) -> dict[str, Any] | None:
    try:
        return parse_object(line.decode())
    except ValueError:
        return None


def parse_object(text: str) -> dict[str, Any]:
    """Read one JSON object from text.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or is no object.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found
