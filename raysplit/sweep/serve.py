"""A live law on its own: no lanes and no trials, only what is reported to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raysplit.errors import RunError, SpaceError
from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.lanes.cluster import joined_cluster
from raysplit.live import endpoint
from raysplit.run_folder.folder import RunFolder, open_run
from raysplit.run_folder.holder import held
from raysplit.space import load_space
from raysplit.sweep.launch import live_law
from raysplit.sweep.run_spec import recorded, run_spec_of


@contextmanager
def served(
    space_file: Path,
    out: Path,
    *,
    http: HttpOptions,
    ray_address: str | None,
    take_over: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Iterator[RunFolder]:
    """Serve the law of a space for the length of a ``with`` block. No corpus is needed, since nothing is trained.

    Raises:
        SpaceError: the space cannot be used, or has no domains yet.
        RunError: the run's law is served already, the folder is held by another command or cannot be written, or the
            address cannot be bound.
    """
    space = load_space(space_file)
    if space.model.checkpoints:
        from raysplit.train.bases import with_bases  # which loads torch

        space = with_bases(space)
    if space.corpus.discover is not None:
        raise SpaceError(
            f"{space_file}: its domains are yet to be found; run `raysplit corpus discover {space_file}` and serve the "
            "space that it writes"
        )
    with held(out, command="raysplit serve", take_over=take_over, tell=tell):
        folder = open_run(out, space)
        if endpoint.find(folder.path) is not None:
            raise RunError(f"{folder.path}: its law is live already; ask it with `raysplit status {folder.path}`")
        run = run_spec_of(folder, recorded(folder.journal))
        with joined_cluster(None, address=ray_address), live_law(run, folder, face=HttpFace(http)):
            yield folder
