"""A live law on its own: no lanes and no trials, only what is reported to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from raysplit.errors import RunError, SpaceError
from raysplit.live import beacon
from raysplit.live.actor import start_law_actor
from raysplit.live.http_options import HttpOptions
from raysplit.space import load_space
from raysplit.sweep.basis import Basis, basis_of_run, recorded
from raysplit.sweep.cluster import joined_cluster
from raysplit.sweep.folder import RunFolder, open_run
from raysplit.sweep.holder import held
from raysplit.sweep.launch import show_law


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
    """Serve the law of a space for the length of a ``with`` block; no corpus is needed, since nothing is trained.

    Raises:
        SpaceError: the space is unusable, or has no domains yet.
        RunError: the run's law is served already, the folder is held by another command or cannot be written, or the
            address cannot be bound.
    """
    space = load_space(space_file)
    if space.corpus.discover is not None:
        raise SpaceError(
            f"{space_file}: its domains are yet to be found; run `raysplit corpus discover {space_file}` and serve the "
            "space that it writes"
        )
    with held(out, command="raysplit serve", take_over=take_over, tell=tell):
        folder = open_run(out, space)
        if beacon.find(folder.path) is not None:
            raise RunError(f"{folder.path}: its law is live already; ask it with `raysplit status {folder.path}`")
        basis = basis_of_run(folder, space, recorded(folder))
        with _live(basis, folder, http=http, ray_address=ray_address):
            yield folder


@contextmanager
def _live(basis: Basis, folder: RunFolder, *, http: HttpOptions, ray_address: str | None) -> Iterator[None]:
    with joined_cluster(None, address=ray_address):
        law = start_law_actor(
            folder.sweep_id, basis.setup, folder.journal, basis.bytes_per_token, basis.shapes, http=http
        )
        show_law(folder)
        try:
            yield
        finally:
            beacon.put_out(folder.path)
            ray.kill(law)
