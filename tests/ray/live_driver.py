"""A driver that starts a law actor and reports to it until it is killed; prints how many are acknowledged."""

import sys
from pathlib import Path

import ray

from raysplit.live.client import LiveLaw
from tests.ray import live


def main() -> None:
    address, name, journal = sys.argv[1:]
    ray.init(address=address, namespace="raysplit", log_to_driver=False, logging_level="ERROR")
    client = LiveLaw(live.start(name, Path(journal)))
    rows = live.observations(120)
    for first in range(0, 120, 3):
        client.observe(rows[first : first + 3])
        sys.stdout.write(f"{first + 3}\n")
        sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
