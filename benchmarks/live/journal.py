"""How fast does the journal store observations durably, and how fast is it read back?

    python benchmarks/live/journal.py [--observations 100000] [--batch 500] [--where FOLDER|URL]

Each batch is acknowledged, so on disk, before the next; then the journal is read whole and opened again. "Slowest" is
the longest wait for one batch.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from raysplit.journal import Journal, read_journal
from raysplit.runs import Observation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--where", default="", help="a folder or URL instead of one in the temporary folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        location = asked.where or str(Path(scratch) / "journal")
        rows = [
            Observation(
                n_params=1_000_000 + i, pretrain_tokens=20_000_000 + i, specialize_tokens=200_000, domain="code",
                loss=2.0 + i / 1e6, seed=i % 5, weight=1.0, flops=1.2e14 + i, bits_per_byte=0.7 + i / 1e6,
                wall_seconds=12.5, trial=f"n1000000-d{i}",
            )
            for i in range(asked.observations)
        ]  # fmt: skip
        journal = Journal(location)
        slowest = 0.0
        begin = time.perf_counter()
        for first in range(0, len(rows), asked.batch):
            began = time.perf_counter()
            journal.append_many(
                [("observation", {"rows": [asdict(row)], "round": 0}) for row in rows[first : first + asked.batch]]
            )
            slowest = max(slowest, time.perf_counter() - began)
        stored = time.perf_counter() - begin
        journal.close()
        begin, began_cpu = time.perf_counter(), time.process_time()
        n_read = len(read_journal(location))
        read, read_cpu = time.perf_counter() - begin, time.process_time() - began_cpu
        begin = time.perf_counter()
        journal = Journal(location)
        opened = time.perf_counter() - begin
        journal.close()
    assert n_read == len(rows)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores")
    rate = len(rows) / stored
    print(f"stored   {rate:8,.0f} observations/s, in batches of {asked.batch}; slowest {1e3 * slowest:.0f} ms")
    print(f"read     {read:8.2f} s for {n_read:,}, of which {read_cpu:.2f} s at work")
    print(f"opened   {opened:8.2f} s, reading included")
    print(f"memory   {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MiB at most")


if __name__ == "__main__":
    main()
