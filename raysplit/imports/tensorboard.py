"""TensorBoard: folders of event files, one a run, read by the package ``tensorboard`` itself.

A run's values are those of every scalar at its last step. Several event files in a folder are one run that was taken up
again. Hyperparameters come from the plugin ``hparams``, also from the folder named by the time into which
``add_hparams`` puts them, or from the ``hparams.yaml`` that Lightning writes beside the events. Seen with TensorBoard
2.21.
"""

import logging
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.documents import read_yaml
from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.imports.source import Source

_EVENTS = "tfevents."
_BY_TIME = re.compile(r"\d{9,}\.\d+")
"""Name of a folder that ``SummaryWriter.add_hparams`` makes."""
_PARTS = re.compile(r"(^|/)(hparams\.yaml|metrics\.csv|projector_config\.pbtxt)$|(^|/)(checkpoints|plugins)/")
_CUT = ": the run was stopped as it wrote, or the copy is not whole; copy it again, or give its values as a table"
_ENDED = {2: "failed", 3: "running"}
"""tensorboard.plugins.hparams.Status."""


def recognises(source: Source) -> bool:
    """Whether a source is or holds an event file."""
    return any(map(_is_events, source.files))


def is_part(name: str) -> bool:
    """Whether a file that was not read is one of TensorBoard's own, and no run."""
    return _is_events(Path(name)) or _PARTS.search(name) is not None


def read_tensorboard(source: Source) -> Found:
    """One row a folder of event files.

    Raises:
        TableError: the package ``tensorboard`` is not installed.
    """
    if find_spec("tensorboard") is None:
        raise TableError(
            f"{source.path}: event files of TensorBoard are read by its own package: pip install 'raysplit[import]', "
            "or pip install tensorboard"
        )
    folders = sorted({path.parent for path in source.files if _is_events(path)})
    rows: list[FoundRow] = []
    for folder in folders:
        if not _belongs_above(folder, folders):
            of_run = [folder, *(f for f in folders if f.parent == folder and _belongs_above(f, folders))]
            rows.append(_read_run(folder, of_run, source))
    usable = sum(not row.unusable for row in rows)
    note = "TensorBoard does not record how a run ended: the last value of each is taken as that after its cooldown"
    return Found(kind="tensorboard", are_runs=True, origin=str(source.path), rows=rows, notes=[note] if usable else [])


def _is_events(path: Path) -> bool:
    return _EVENTS in path.name and not path.name.endswith(".profile-empty")


def _belongs_above(folder: Path, folders: list[Path]) -> bool:
    """Whether a folder holds only the hyperparameters of the run in the folder above: it is the only one there."""
    alike = [f for f in folders if f.parent == folder.parent and _BY_TIME.fullmatch(f.name)]
    return alike == [folder] and folder.parent in folders


def _read_run(folder: Path, folders: list[Path], source: Source) -> FoundRow:
    name = source.name_of(folder) if folder != source.path else folder.resolve().name
    newest = sorted(path for path in folder.iterdir() if _is_events(path))[-1]
    values: dict[str, object] = {}
    status = 0
    for one in folders:
        try:
            scalars, settings, ended = _read_folder(one)
        except Exception:  # of the package and of protobuf, whose errors have no common base
            return FoundRow(run=name, where=str(folder), values={}, unusable="with event files that cannot be read")
        values |= scalars | settings
        status = ended or status
    lightning = folder / "hparams.yaml"
    unusable = _ENDED.get(status, "")
    if lightning.exists():
        try:
            values |= dict(flatten({"config": read_yaml(lightning)}))
        except TableError:
            unusable = "with a damaged hparams.yaml"
    if _is_cut(newest):
        unusable = f"with an event file that is cut short{_CUT}"
    elif not values:
        unusable = "without a scalar in its event files: the run logged none, or logs them elsewhere"
    return FoundRow(run=name, where=str(folder), values=values, unusable=unusable)


def _read_folder(folder: Path) -> tuple[dict[str, object], dict[str, object], int]:
    """(scalars, hyperparameters, status by the plugin) of the event files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every event that is out of order
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}, purge_orphaned_data=False)
    events.Reload()
    tags = events.Tags()
    scalars: dict[str, object] = {}
    for tag in tags["scalars"]:
        scalars[tag] = max(events.Scalars(tag), key=lambda event: (event.step, event.wall_time)).value
    plugins = events.summary_metadata
    for tag in tags["tensors"]:
        if plugins[tag].plugin_data.plugin_name == "scalars":
            last = max(events.Tensors(tag), key=lambda event: (event.step, event.wall_time))
            scalars[tag] = make_ndarray(last.tensor_proto).item()
    content = events.PluginTagToContent("hparams") if "hparams" in _plugins(plugins) else {}
    return scalars, *_hyperparameters(content)


def _plugins(metadata: Mapping[str, Any]) -> set[str]:
    return {about.plugin_data.plugin_name for about in metadata.values()}


def _hyperparameters(content: Mapping[str, bytes]) -> tuple[dict[str, object], int]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found: dict[str, object] = {}
    status = 0
    for raw in content.values():
        data = HParamsPluginData.FromString(raw)
        for name, value in data.session_start_info.hparams.items():
            found[f"config.{name}"] = getattr(value, value.WhichOneof("kind") or "null_value")
        status = data.session_end_info.status or status
    return found, status


def _is_cut(path: Path) -> bool:
    """Whether a file ends within an event.

    An event is framed: its length (eight bytes), a checksum of that (four), the event, and its checksum (four).
    """
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            end += 8 + 4 + int.from_bytes(file.read(8), "little") + 4
    return end != size
