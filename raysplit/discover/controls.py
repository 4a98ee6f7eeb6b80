"""Controls for discovered domains: the same text divided by the labels that it came with, and at random.

They tell what clusters are worth. Random clusters must lose: they divide the budget among as many experts, and no
expert has a domain (Branch-Train-Merge, arXiv:2208.03306, section 4.4; c-BTM, arXiv:2303.14177, has them too).
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from raysplit.discover.record import DOCUMENTS_FILE, HELD_OUT_COLUMN
from raysplit.errors import CorpusError
from raysplit.space import Space, parse_space

Control = Literal["labels", "random"]
CONTROLS: tuple[Control, ...] = get_args(Control)
_BATCH_DOCUMENTS = 4096


def control_spaces(space: Space, discovery: Path, out: Path) -> dict[Control, Space]:
    """Write the documents with both divisions into ``out``, and give a space for each.

    Shares in the mixture and weights of the losses are in proportion to the domains' training bytes. Labels are the
    sources' names; with one source there is no such control. Random clusters are as many as the discovered ones, and
    the hash of a document says which one it is in.

    Args:
        space: with the discovered domains.
        discovery: folder of the discovery.
        out: folder of the controls.

    Raises:
        CorpusError: the discovery's documents are missing or damaged.
        SpaceError: a setting of the space does not go with these domains.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / DOCUMENTS_FILE
    train_bytes = _divide(discovery / DOCUMENTS_FILE, path, k=len(space.domains))
    found = {}
    for control in CONTROLS:
        n_bytes = dict(sorted(train_bytes[control].items()))
        if len(n_bytes) < 2:
            continue
        domains = {
            name: {
                "kind": "table", "path": str(path), "label_column": control, "label": name,
                "held_out_column": HELD_OUT_COLUMN,
            }
            for name in n_bytes
        }  # fmt: skip
        raw = space.model_dump(mode="json")
        raw["corpus"] |= {"domains": domains, "clusterer": None, "mixture": n_bytes}
        raw["target"] |= {"domain_weights": n_bytes}
        found[control] = parse_space(raw | {"name": f"{space.name}-{control}"}, origin=str(out / control))
    return found


def _divide(documents: Path, path: Path, *, k: int) -> dict[Control, Counter[str]]:
    """Write each document with its label and its random cluster; give the training bytes of each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"text": pa.string(), HELD_OUT_COLUMN: pa.bool_(), **dict.fromkeys(CONTROLS, pa.string())})
    n_bytes: dict[Control, Counter[str]] = {control: Counter() for control in CONTROLS}
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for rows in _batches(documents):
            rows["labels"] = [str(source) for source in rows.pop("source")]
            rows["random"] = [_random_cluster(text, k) for text in rows["text"]]
            writer.write_table(pa.table(rows, schema=schema))
            sizes = [len(text.encode()) for text in rows["text"]]
            for control in CONTROLS:
                for name, size, is_held_out in zip(rows[control], sizes, rows[HELD_OUT_COLUMN], strict=True):
                    n_bytes[control][name] += 0 if is_held_out else size
    partial.replace(path)
    return n_bytes


def _batches(documents: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(documents) as file:
            for batch in file.iter_batches(_BATCH_DOCUMENTS, columns=["text", "source", HELD_OUT_COLUMN]):
                yield batch.to_pydict()
    except FileNotFoundError as error:
        raise CorpusError(f"{documents}: is missing; controls divide the documents of a discovery") from error
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{documents}: cannot be read: {error}") from error


def _random_cluster(text: str, k: int) -> str:
    return f"r{int.from_bytes(hashlib.sha256(b'control ' + text.encode()).digest()[:8], 'big') % k}"
