"""A sweep of two minutes' training text that ends in seconds, run as a user runs it: the command in a process."""

import os
import pydoc_data.topics
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from raysplit.journal import has_journal, read_journal
from tests.conftest import REPOSITORY

MARK = "RAYSPLIT_TEST_MARK"


def write_texts(folder: Path) -> None:
    """Two domains that every Python brings along: its library's code, and its manual's prose."""
    code = folder / "code"
    code.mkdir(parents=True)
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("argparse", "ast", "calendar", "cmd", "codecs", "configparser", "csv", "difflib", "doctest", "enum"):
        (code / f"{name}.txt").write_text((library / f"{name}.py").read_text(encoding="utf-8"), encoding="utf-8")
    prose = folder / "prose"
    prose.mkdir()
    for name, topic in sorted(pydoc_data.topics.topics.items()):
        (prose / f"{name.replace('/', '-')}.txt").write_text(topic, encoding="utf-8")


def tiny_space(texts: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    """Twenty points of two sizes, two D, two D' and two domains; ``changes`` are merged into its sections."""
    space: dict[str, Any] = {
        "name": "tiny",
        "corpus": {
            "domains": {name: {"kind": "files", "path": str(texts / name)} for name in ("code", "prose")},
            "tokenizer": {"kind": "bpe", "vocab_size": 300},
            "validation_fraction": 0.2,
        },
        "model": {"sizes": ["14k", "28k"], "context_length": 64},
        "training": {
            "batch_tokens": 512,
            "micro_batch_sequences": 4,
            "learning_rate": {"reference": "1e-2", "reference_params": "14k"},
            "warmup_tokens": 2048,
            "validation_tokens": 2048,
        },
        "sweep": {"pretrain_tokens": [8192, 16384], "specialize_tokens": [4096, 8192], "policy": "grid"},
        "target": {"budget_flops": 1e10},
        "compute": {"lanes": 1},
    }
    for section, values in changes.items():
        space[section] |= values
    return space


def behind_a_proxy() -> dict[str, str]:
    """This environment as companies have it: nothing here may be asked through the proxy, which is not there."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"), "http://127.0.0.1:1")
    return {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"} | proxies


@dataclass
class Command:
    """`raysplit` running in a session of its own, its processes known by a mark in their environment."""

    process: subprocess.Popen[str]
    mark: str
    out: Path

    def measurements(self) -> list[dict[str, Any]]:
        return records(self.out, "measurement")

    def wait_for(self, ready: Callable[[], bool], *, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.process.communicate()}"
            assert time.monotonic() < end, "did not get there"
            time.sleep(0.2)  # each look reads the journal whole, on a core that the sweep could use

    def wait_for_measurements(self, n: int) -> None:
        self.wait_for(lambda: len(self.measurements()) >= n)

    def end(self, *, seconds: float = 480) -> tuple[int, str]:
        """Wait for its end; (status, everything it printed)."""
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, out

    def signal(self, number: signal.Signals) -> None:
        """As a terminal does: to the whole foreground process group."""
        os.killpg(self.process.pid, number)

    def processes(self, name: str = "") -> dict[int, str]:
        """Living processes that this command started, at whatever remove; ``name`` is a part of their title."""
        return {pid: title for pid, title in marked_processes(self.mark).items() if name in title}

    def wait_until_gone(self, *, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < end, f"left behind: {left}"
            time.sleep(0.2)


def marked_processes(mark: str) -> dict[int, str]:
    """Titles of the living processes that inherited a mark."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if state != "Z":
                    found[int(folder.name)] = title
        except OSError:
            continue
    return found


def start(*arguments: object, out: Path, cwd: Path, module: str = "raysplit", **environment: str) -> Command:
    """Start ``raysplit``, or another module, with arguments."""
    mark = uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        env={**behind_a_proxy(), "PYTHONPATH": str(REPOSITORY), MARK: mark, "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Command(process, mark, out)


def records(out: Path, kind: str) -> list[dict[str, Any]]:
    """Data of the journal's records of a kind."""
    journal = out / "journal"
    return [dict(r.data) for r in read_journal(journal) if r.kind == kind] if has_journal(journal) else []


def losses(out: Path) -> dict[tuple[object, ...], dict[str, float]]:
    """(chain, milestone) -> losses; fails when a point is there twice."""
    found: dict[tuple[object, ...], dict[str, float]] = {}
    for data in records(out, "measurement"):
        trial = data["trial"]
        root = trial["pretrain_tokens"] if trial["domain"] else 0
        at = (trial["n_params"], trial["seed"], trial["domain"], root, data["milestone"])
        assert at not in found, f"measured twice: {at}"
        found[at] = data["losses"]
    return found


def write_space(path: Path, space: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(space))
    return path


def kill(processes: dict[int, str]) -> None:
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
