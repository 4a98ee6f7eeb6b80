"""The commands for clusters, which no test can run: each is one that exists, with options and files that exist."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from raysplit.cli import main
from tests.conftest import REPOSITORY
from tests.docs.pages import blocks_of

CLUSTER = REPOSITORY / "cluster"
PAGE = CLUSTER / "README.md"
_VARIABLE = {"$SPACE": "space.yaml", "$OUT": "/shared/run"}


def lines() -> Iterator[tuple[str, list[str]]]:
    """(file, words) of each command in the README's blocks, in the comments at the head of files, and in scripts."""
    for block in blocks_of(PAGE):
        if block.is_commands:
            yield from ((block.place, words) for line in block.text.splitlines() if (words := words_of(line)))
    for file in sorted(path for path in CLUSTER.rglob("*") if path.is_file() and path != PAGE):
        for line in file.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"(?:#  )?\s*(?:entrypoint: )?((?:ray|raysplit) [a-z-]+ .*)", line):
                yield file.name, words_of(found[1])


def words_of(line: str) -> list[str]:
    """As far as a `&`, a `|` or a redirection."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # one of several lines of a script
        words = line.split()
    end = next(
        (i for i, word in enumerate(words) if word in ("&", "|", "||", "&&", "\\") or word.startswith(">")), None
    )
    return [_VARIABLE.get(word, word) for word in words[:end]]


def programs(words: list[str]) -> Iterator[list[str]]:
    """The command itself, and the one that `ray exec` runs on the head."""
    yield words
    if words[:2] == ["ray", "exec"]:
        yield shlex.split(words[3])


COMMANDS = [(place, words) for place, line in lines() for words in programs(line)]


@pytest.mark.parametrize(
    ("place", "words"), [each for each in COMMANDS if each[1][0] == "raysplit"], ids=lambda each: str(each)[:60]
)
def test_raysplit_has_the_command_with_its_options(place: str, words: list[str]) -> None:
    with click.Context(main) as group:
        name, command, arguments = main.resolve_command(group, words[1:])
        assert command is not None
        command.make_context(name, arguments, parent=group)
    for word in words:
        if word.startswith("search_spaces/"):
            assert (REPOSITORY / word).is_file(), f"{place}: {word}"


@pytest.mark.parametrize(
    ("place", "words"), [each for each in COMMANDS if each[1][0] == "ray"], ids=lambda each: str(each)[:60]
)
def test_ray_has_the_command_with_its_options(place: str, words: list[str]) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="needs the train extra")
    command = scripts.cli.commands[words[1]]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    asked = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
    assert asked <= options, place


def test_every_file_of_a_cluster_that_is_named_is_there() -> None:
    named = re.findall(r"cluster/[\w/]+\.\w+|(?:kuberay|slurm|skypilot)/\w+\.\w+", PAGE.read_text(encoding="utf-8"))
    assert len(named) >= 6
    for name in named:
        assert (CLUSTER / name.removeprefix("cluster/")).is_file(), name


def test_every_command_of_the_way_is_among_them() -> None:
    said = {(words[0], words[1]) for _, words in COMMANDS}
    assert {("ray", "up"), ("ray", "down")} | {
        ("raysplit", name) for name in ("doctor", "submit", "status", "stop", "resume", "run")
    } <= said
