"""A program that reaches a law actor through Ray Client: reports an observation and prints what it is told."""

import asyncio
import json
import sys
from dataclasses import replace

from raysplit.errors import TableError
from raysplit.live.client import connect
from tests.ray import live


def main() -> None:
    name, address, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
    law = connect(name, address=address)
    [row] = live.observations(first + 1)[first:]
    law.observe([row])
    try:
        law.observe([replace(row, pretrain_tokens=-1)])
    except TableError as error:
        refusal = str(error)
    at = {"n_params": 90_000, "pretrain_tokens": 4e6, "specialize_tokens": 1e6}
    prediction = law.predict(live.ASKED.domains[0], **at, version=1)
    later = asyncio.run(law.aio.predict(live.ASKED.domains[0], **at, version=1))
    told = {
        "n_observations": law.status().n_observations,
        "refusal": refusal,
        "split": law.advise(version=1).advice.split.pretrain_tokens,
        "loss": prediction.mean,
        "later": later.mean,
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
