"""Does any damaged table end in something else than a clear error, or take unbounded time or memory?

    python benchmarks/readers/fuzz_tables.py --inputs 20000        # minutes

Tables in every format are changed at up to three places (random bytes, pieces that mean something to a parser, hostile
numbers) or cut off. They are read under a name drawn at random, by `read_runs` and by `import_runs`. Each should be
read, or refused with a `RaysplitError`. The script fails at the first other exception, and leaves its file. It prints
how many were read, the slowest, and the largest memory.
"""

import argparse
import gzip
import io
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from raysplit.errors import RaysplitError
from raysplit.imports import import_runs
from raysplit.runs import read_runs

FRAME = pd.DataFrame(
    [("done", i, 14_000, i * 10_000, 0, "law", 5 - i / 8, i % 2) for i in range(1, 7)],
    columns=["status", "_step", "n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss", "seed"],
)
PIECES = [b'"', b";", b",,,,", b"\0", b"\r", b"\xff\xfe", b"9" * 5000, b"[" * 3000, b"{", b"\\ud800", b"\xe2\x80\xa8"]
PIECES += [
    b"PK\x03\x04",
    b"PAR1",
    b"\x1f\x8b",
    b"(\xb5/\xfd",
    b"nan",
    b"1e400",
    b"-1",
    b"1e999999999",
    b"true",
    b"0x10",
]
PIECES += [b"1,234,567", b"1.234.567,8", b"(M)", b"-inf", b"  ", b"20 million", b"running", b"{domain}"]
NAMES = [
    "runs.csv",
    "RUNS.TSV",
    "runs.txt",
    "runs.json",
    "runs.jsonl",
    "runs.parquet",
    "runs.feather",
    "runs.xlsx",
    "runs.csv.gz",
]


def written() -> list[bytes]:
    """The table in every format."""

    def stored(write: Callable[[io.BytesIO], object]) -> bytes:
        write(buffer := io.BytesIO())
        return buffer.getvalue()

    csv = FRAME.to_csv(index=False)
    european = FRAME.to_csv(index=False, sep=";", decimal=",")
    texts = [
        csv,
        european,
        FRAME.to_csv(index=False, sep="\t"),
        FRAME.to_json(),
        FRAME.to_json(orient="records", lines=True),
    ]
    binary = [FRAME.to_parquet, FRAME.to_feather, lambda file: FRAME.to_excel(file, index=False)]
    return [*(text.encode() for text in texts), csv.encode("utf-16"), gzip.compress(csv.encode()), *map(stored, binary)]


def damage(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(4)):
        start = rng.randrange(len(changed) + 1)
        piece = rng.choice(PIECES) if rng.random() < 0.7 else rng.randbytes(rng.randrange(12))
        changed[start : start + rng.choice([0, 0, 1, 3, 60])] = piece
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.1 else changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, seeds = random.Random(arguments.seed), written()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-tables-"))
    n_read, slowest = 0, (0.0, "")
    for _ in range(arguments.inputs):
        path = folder / rng.choice(NAMES)
        path.write_bytes(damage(rng.choice(seeds), rng))
        for read in (read_runs, import_runs):
            started = time.perf_counter()
            try:
                read(path)
                n_read += 1
            except RaysplitError:
                pass
            except BaseException:
                print(f"{path}: {read.__name__}")
                raise
            slowest = max(slowest, (time.perf_counter() - started, path.name))
        path.unlink()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.inputs} files, each read twice: {n_read} times a table, else refused")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}), memory {memory:.0f} MB at most")


if __name__ == "__main__":
    main()
