"""Finding domains from the command line: alone, or on the way of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from raysplit.cli.bases import with_counted_bases
from raysplit.cli.options import steps_shown
from raysplit.discover.discovery import discover
from raysplit.discover.labelling import Labeller, label_here, label_with_ray
from raysplit.discover.page import summary
from raysplit.discover.record import Discovery, clusters_folder, read_clusters
from raysplit.discover.spaces import discovered_space, short_clusters
from raysplit.run_folder.folder import RunFolder, write_text
from raysplit.space import DiscoverSpec, Space, dump_space, load_space


def discover_spaces(
    space_file: Path,
    *,
    ks: tuple[int, ...] | None,
    out: Path | None,
    seed: int | None,
    on_ray: bool,
    ray_address: str | None,
    console: Console,
) -> None:
    """Discover for each K, and write a search space and a page of each.

    Raises:
        CorpusError: as `raysplit.discover.discovery.discover`.
        SpaceError: the space is unusable.
    """
    space = with_counted_bases(load_space(space_file))
    settings = space.corpus.discover or DiscoverSpec(
        k=len(space.corpus.domains) if len(space.corpus.domains) > 1 else 2
    )
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    ks = ks or (settings.k,)
    out = (out or Path("discovered") / space.name).absolute()
    with _labeller(on_ray, ray_address) as label:
        discovery = _discover(space, settings, ks, out, console=console, label=label)
    for k in ks:
        _write_space(space, discovery, out, k)
        console.print(f"  space: {clusters_folder(out, k) / 'space.yaml'}")
        console.print(f"  page:  {clusters_folder(out, k) / 'clusters.html'}")


def discover_in_run(space: Space, folder: RunFolder, console: Console) -> Space:
    """The space of a run with the domains that are found in its text, or were before.

    Raises:
        CorpusError: as `raysplit.discover.discovery.discover`.
    """
    settings = space.corpus.discover
    assert settings is not None
    discovery = _discover(space, settings, (settings.k,), folder.discovery, console=console, label=label_here)
    discovered = load_space(_write_space(space, discovery, folder.discovery, settings.k))
    write_text(folder.discovered_space, dump_space(discovered))
    return discovered


def _discover(
    space: Space, settings: DiscoverSpec, ks: Sequence[int], out: Path, *, console: Console, label: Labeller
) -> Discovery:
    with steps_shown(console) as show:
        discovery = discover(space.corpus, settings, ks, out, progress=show, label=label)
    for note in discovery.notes:
        console.print(f"  {note}")
    for k in ks:
        for sentence in summary(read_clusters(out, k), discovery):
            console.print(f"  {sentence}")
        for sentence in short_clusters(discovered_space(space, discovery, out, k=k), read_clusters(out, k)):
            console.print(f"  warning: {sentence}")
    return discovery


def _write_space(space: Space, discovery: Discovery, out: Path, k: int) -> Path:
    path = clusters_folder(out, k) / "space.yaml"
    write_text(path, dump_space(discovered_space(space, discovery, out, k=k)))
    return path


@contextmanager
def _labeller(on_ray: bool, ray_address: str | None) -> Iterator[Labeller]:
    if not on_ray:
        yield label_here
        return
    import ray

    ray.init(address=ray_address or "local", include_dashboard=False, log_to_driver=False)
    try:
        yield label_with_ray
    finally:
        ray.shutdown()
