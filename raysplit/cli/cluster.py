"""Commands about the machines: whether they are fit for a sweep, and a sweep handed to a cluster from outside."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raysplit import strict_json
from raysplit.cli.options import ray_address_option, say, show
from raysplit.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raysplit.doctor.findings import Finding

dashboard_option = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    show_envvar=True,
    help="Of the cluster's dashboard, http://HEAD:8265; this node's own when left out.",
)


@click.command()
@click.argument("space_file", metavar="[SPACE]", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder, whose storage every node must share.")
@ray_address_option
@click.option("--json", "output", flag_value="json", default="text", help="One JSON object a finding.")
def doctor(space_file: Path | None, out: Path | None, ray_address: str | None, output: str) -> None:
    """Whether the machines are fit for a sweep: what is wrong, where, and what would mend it.

    Without --ray-address it looks at this machine; with it, at every node of the cluster: versions, GPUs, room for
    each size's lane, storage written on one node and read on the others, the corpus, ranks that reach each other,
    clocks, disks and limits. The exit status is 0 where all is well, 1 for warnings, 2 for errors.
    """
    from raysplit.cli.bases import with_counted_bases
    from raysplit.design.lane_shapes import lane_shape_of
    from raysplit.doctor.examine import examine_cluster, examine_here
    from raysplit.doctor.findings import exit_status
    from raysplit.space import load_space

    space = None if space_file is None else with_counted_bases(load_space(space_file))
    device = "cpu" if space is None else space.compute.device
    if ray_address is None:
        findings, where = examine_here(device=device, folder=out), "this machine"
    else:
        import ray

        from raysplit.lanes.cluster import joined_cluster

        shapes = {} if space is None else {n: lane_shape_of(space, n) for n in space.model.sizes}
        sources = [] if space is None else [*space.corpus.domains.values(), *space.corpus.sources.values()]
        # What is read on the head alone, once, is no concern of the others; a corpus that is built is.
        built = [out / "corpus"] if out is not None and (out / "corpus").exists() else []
        with joined_cluster(None, address=ray_address):
            where = f"{len([node for node in ray.nodes() if node['Alive']])} nodes"
            findings = examine_cluster(device=device, shapes=shapes, folder=out, readable=tuple(built), ranks=True)
        for source in sources:
            if source.kind in ("files", "table") and source.path and not Path(source.path).parent.exists():
                say(f"warning: {source.path}: its folder is not here, where the corpus would be built")
    for finding in findings:
        show(strict_json.dumps(asdict(finding)) if output == "json" else str(finding))
    if output == "text":
        show(f"{where}: {_counted(findings)}")
    sys.exit(exit_status(findings))


@click.command()
@click.argument("space_file", metavar="SPACE", type=click.Path(path_type=Path))
@click.option("--out", required=True, help="Run folder on the cluster, on storage that its nodes share.")
@dashboard_option
@click.option("--http", "http_address", help="Have the law served there, by the head: 0.0.0.0:8350.")
@click.option("--wait/--no-wait", default=False, help="Follow the sweep's output here until it ends.")
@click.argument("options", nargs=-1)
def submit(
    space_file: Path, out: str, address: str | None, http_address: str | None, wait: bool, options: tuple[str, ...]
) -> None:
    """Hand SPACE to a cluster as a job that runs `raysplit run` there, and come back.

    What stands after `--` is given to `raysplit run`. The same line again continues a job that has ended, and follows
    one that runs. `raysplit stop` ends it in order.
    """
    from raysplit.sweep.jobs import SubmittedJobs, SubmittedRun

    more = (("--http", http_address) if http_address else ()) + options
    run = SubmittedRun.of(space_file, out, options=more)
    jobs = SubmittedJobs.at(address)
    job = jobs.running_in(run.run_folder)
    if job is None:
        job = jobs.submit(run)
        show(f"submitted: job {job}, run folder {out}")
    else:
        show(f"runs already: job {job}, run folder {out}")
    show(f"raysplit stop {out} ends it in order; the same command continues it")
    if wait:
        sys.exit(0 if jobs.follow(job, tell=lambda text: click.echo(text, nl=False)) else 1)


@click.command()
@click.argument("out", metavar="RUN")
@dashboard_option
@click.option("--json", "output", flag_value="json", default="text", help="Print it as JSON.")
def stop(out: str, address: str | None, output: str) -> None:
    """End a submitted sweep in order; everything measured is kept, and `raysplit submit` continues it."""
    from raysplit.sweep.jobs import SubmittedJobs

    jobs = SubmittedJobs.at(address)
    job = jobs.running_in(out)
    if job is None:
        raise RunError(f"{out}: no job that was submitted for this run folder is running there")
    ended = jobs.stop(job)
    show(json.dumps({"job": job, "status": ended}) if output == "json" else f"job {job}: {ended.lower()}")


def _counted(findings: "Sequence[Finding]") -> str:
    from raysplit.quantities import counted

    kinds = [finding.severity for finding in findings]
    return ", ".join(counted(kinds.count(kind), kind) for kind in ("error", "warning")) if kinds else "nothing is wrong"
