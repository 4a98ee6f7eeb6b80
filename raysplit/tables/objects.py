"""JSON as people have it: lines, an array, one object over many lines, objects one after another, and pandas's own."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.tables.limits import read_characters

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_RUN_KEYS = ("config", "summary")
"""An object with one of these is a run, whatever lists it holds."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"\s*")


def read_objects(path: Path, *, encoding: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(where, object) of each object in a file; ``where`` is the file with a line, or with the object's number.

    It reads JSON lines, which end at a line feed and nowhere else; an array of objects, or one list of them inside an
    object; objects one after another, over any number of lines; one object; and what pandas's ``to_json`` writes.

    Raises:
        TableError: the file cannot be read, is no JSON, holds something else than objects, or holds half a character (a
            surrogate).
    """
    text = read_characters(path, encoding=encoding)
    found = list(_values(text, path))
    for where, value in found:
        if not isinstance(value, dict):
            raise TableError(f"{where}: is no object such as {{'n_params': 160000000}}, got {str(value)[:80]!r}")
    if _SURROGATE.search(text):
        for where, value in found:
            _refuse_half_characters(value, where)
    return found


def _values(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    if not text.strip():
        return
    try:
        whole = _parse(text)
    except json.JSONDecodeError as error:
        whole_error = error
    except ValueError as error:
        raise TableError(f"{path}: is not JSON: {error}") from error
    else:
        for number, value in enumerate(_rows_of(whole, path), start=1):
            yield f"{path}: run {number}", value
        return
    first = next(line for line in text.split("\n", 1000) if line.strip())
    try:
        _parse(first)
    except ValueError:
        if whole_error.msg != "Extra data":
            raise TableError(f"{path}: line {whole_error.lineno}: is not JSON: {whole_error.msg}") from whole_error
        yield from _one_after_another(text, path)
        return
    yield from _lines(text, path)


def _lines(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}: line {number}"
            try:
                yield where, _parse(line)
            except ValueError as error:
                raise TableError(f"{where}: is not JSON: {getattr(error, 'msg', error)}") from error


def _one_after_another(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    decoder, at = json.JSONDecoder(object_pairs_hook=_without_repeats), 0
    while (at := _after_space(text, at)) < len(text):
        where = f"{path}: line {text.count(chr(10), 0, at) + 1}"
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise TableError(f"{path}: line {error.lineno}: is not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise TableError(f"{where}: is not JSON: {error}") from error
        yield where, value


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _rows_of(whole: Any, path: Path) -> Sequence[Any]:
    """The rows of a table that is one JSON value.

    Raises:
        TableError: it holds several lists of objects, or rows of pandas's that are too short or long.
    """
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict) or any(name in whole for name in _RUN_KEYS):
        return [whole]
    if isinstance(columns := whole.get("columns"), list) and isinstance(rows := whole.get("data"), list):
        return [dict(zip(map(str, columns), row, strict=True)) for row in _of_width(rows, len(columns), path)]
    lists = {name: value for name, value in whole.items() if isinstance(value, list)}
    of_objects = [name for name, value in lists.items() if value and all(isinstance(item, dict) for item in value)]
    if len(of_objects) > 1:
        raise TableError(f"{path}: has several lists of objects: {', '.join(map(repr, of_objects))}; keep one of them")
    if of_objects:
        return lists[of_objects[0]]
    if whole and len(lists) == len(whole) and len({len(value) for value in lists.values()}) == 1:
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if whole and all(isinstance(value, dict) for value in whole.values()):
        if all(name.isdigit() for name in whole):
            return list(whole.values())
        numbers = list(next(iter(whole.values())))
        if numbers and all(n.isdigit() for n in numbers) and all(list(v) == numbers for v in whole.values()):
            return [{name: column[number] for name, column in whole.items()} for number in numbers]
        only = next(iter(whole.values())) if len(whole) == 1 else whole
        return _by_name(only) or [whole]
    return [whole]


def _by_name(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs by their names: objects that share more than one key; none of any other object."""
    keys = [set(value) for value in whole.values() if isinstance(value, dict)]
    is_of_runs = 1 < len(keys) == len(whole) and len(set.intersection(*keys)) > 1
    return [{"name": name} | value for name, value in whole.items()] if is_of_runs else []


def _of_width(rows: Sequence[Any], width: int, path: Path) -> Iterator[Sequence[Any]]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != width:
            raise TableError(f"{path}: run {number}: is no list of {width} cells, one a column")
        yield row


def _refuse_half_characters(value: Mapping[str, Any], where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise TableError(f"{where}: holds half a character, {error.object[error.start]!r}") from error
