"""Does any damaged text, search space or number end in something else than a clear error?

    python benchmarks/readers/fuzz_text.py --inputs 20000        # minutes

Files of every format that a source of text may have are changed at up to three places or cut off, some of them after
they were compressed, and read as a domain's documents. Search spaces are damaged alike and read by `load_space`.
Strings of digits, signs and units are read as counts. The script fails at the first exception that is none of
raysplit's own (a `ValueError` of a number), and leaves its file.
"""

import argparse
import bz2
import gzip
import json
import lzma
import random
import resource
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow
from fuzz_tables import damage

from raysplit.corpus.sources import open_source
from raysplit.errors import RaysplitError
from raysplit.quantities import parse_count
from raysplit.space import SourceSpec, load_space

ROWS = [{"text": f'né "{number}"\u2028, x', "n": number, "more": {"a": [1, None]}} for number in range(9)]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
}
SPACE = Path(__file__).parents[2] / "search_spaces" / "smoke.yaml"
DIGITS = [
    "1",
    "20",
    "999",
    ",",
    ".",
    "'",
    " ",
    "_",
    "e",
    "-",
    "+",
    "M",
    "k",
    "B",
    " million",
    " tokens",
    "0x",
    "٣",
    "\0",
    "9" * 70,
]


def written() -> dict[str, bytes]:
    """Text in each format, undamaged, by suffix."""
    frame = pd.DataFrame(ROWS)
    frame.to_parquet(parquet := BytesIO())
    return {
        ".txt": "\n\n".join(str(row["text"]) for row in ROWS).encode(),
        ".jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
        ".json": json.dumps(ROWS, indent=1).encode(),
        ".csv": frame[["text", "n"]].to_csv(index=False, sep=";").encode(),
        ".tsv": frame[["text", "n"]].to_csv(index=False, sep="\t").encode(),
        ".parquet": parquet.getvalue(),
    }


def read_text(path: Path, rng: random.Random) -> None:
    source = SourceSpec(
        kind="files" if ".txt" in path.name else "table",
        path=str(rng.choice([path, path.parent])),
        on_bad=rng.choice(["few", "skip", "fail"]),
        encoding=rng.choice([None, None, "latin-1", "utf-16", "utf-8"]),
        split_on=rng.choice([None, None, "\n\n", 100]),
    )
    documents = open_source(source, domain="web")
    assert all(text.strip() for text in documents)
    documents.tally.check()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, whole = random.Random(arguments.seed), written()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-text-"))
    n_read, n_spaces, n_numbers, slowest = 0, 0, 0, (0.0, "")
    for number in range(arguments.inputs):
        suffix, packing = rng.choice(list(whole)), rng.choice(list(PACK))
        packed = PACK[packing](damage(whole[suffix], rng)) if rng.random() < 0.5 else damage(whole[suffix], rng)
        path = folder / f"file{suffix}{packing}"
        path.write_bytes(damage(packed, rng) if rng.random() < 0.2 else packed)
        started = time.perf_counter()
        try:
            read_text(path, rng)
            n_read += 1
        except RaysplitError:
            pass
        slowest = max(slowest, (time.perf_counter() - started, path.name))
        path.unlink()
        if number % 10 == 0:
            path = folder / "space.yaml"
            path.write_bytes(damage(SPACE.read_bytes(), rng))
            try:
                load_space(path)
                n_spaces += 1
            except RaysplitError:
                pass
        try:
            parse_count("".join(rng.choices(DIGITS, k=rng.randrange(1, 6))))
            n_numbers += 1
        except ValueError:
            pass
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.inputs} files of text: {n_read} read; slowest {slowest[0]:.2f} s ({slowest[1]})")
    print(f"{arguments.inputs // 10} search spaces: {n_spaces} read; {arguments.inputs} numbers: {n_numbers} read")
    print(f"the others refused; memory {memory:.0f} MB at most")


if __name__ == "__main__":
    main()
