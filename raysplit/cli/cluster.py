"""Commands about the machines: whether they are fit for a sweep, and a sweep handed to a cluster from outside."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raysplit import strict_json
from raysplit.cli.elsewhere import say_reaching
from raysplit.cli.options import ray_address_option, say, show
from raysplit.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raysplit.doctor.findings import Finding
    from raysplit.space import Space
    from raysplit.sweep.jobs import SubmittedRun

dashboard_option = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    show_envvar=True,
    help="Of the cluster's dashboard, http://HEAD:8265; this node's own when left out.",
)

wait_for_end_option = click.option(
    "--wait/--no-wait", default=False, help="Follow the sweep's output here until it ends."
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
    say(f"looking at {f'the cluster at {ray_address}' if ray_address else 'this machine'}")
    from raysplit.cli.bases import with_counted_bases
    from raysplit.doctor.findings import exit_status
    from raysplit.space import load_space

    space = None if space_file is None else with_counted_bases(load_space(space_file))
    findings, where = examine(space, out, ray_address, looks_for_room=True)
    for finding in findings:
        show(strict_json.dumps(asdict(finding)) if output == "json" else str(finding))
    if output == "text":
        show(f"{where}: {_counted(findings)}")
    sys.exit(exit_status(findings))


def examine(
    space: "Space | None", out: Path | None, ray_address: str | None, *, looks_for_room: bool
) -> "tuple[list[Finding], str]":
    """What is wrong with this machine, or with the nodes of a cluster; and in words what was looked at.

    Args:
        space: whose lanes and texts are looked for.
        out: run folder.
        ray_address: of a running cluster; None for this machine.
        looks_for_room: whether a lane that fits nowhere now is wrong.
    """
    from raysplit.design.lane_shapes import lane_shape_of
    from raysplit.discover.spaces import expected_space
    from raysplit.doctor.examine import examine_cluster, examine_here
    from raysplit.doctor.findings import Finding
    from raysplit.sweep.plan import checkpoint_bytes, missing_texts

    device = "cpu" if space is None else space.compute.device
    needed_bytes = 0.0 if space is None else checkpoint_bytes(expected_space(space))
    # A corpus that is built is read everywhere; what it is built from, on the head alone.
    built = out is not None and (out / "corpus").exists()
    if ray_address is None:
        findings, where = examine_here(device=device, folder=out, needed_bytes=needed_bytes), "this machine"
    else:
        import ray

        from raysplit.lanes.cluster import joined_cluster
        from raysplit.quantities import counted

        shapes = {} if space is None else {n: lane_shape_of(space, n) for n in space.model.sizes}
        with joined_cluster(None, address=ray_address):
            where = counted(len([node for node in ray.nodes() if node["Alive"]]), "node")
            findings = examine_cluster(
                device=device, shapes=shapes if looks_for_room else {}, folder=out, needed_bytes=needed_bytes,
                readable=(out / "corpus",) if out is not None and built else (),
                ranks=looks_for_room or any(shape.n_nodes > 1 for shape in shapes.values()),
            )  # fmt: skip
    missing = [] if space is None or built else missing_texts(space)
    findings += [
        Finding(
            severity="warning", where="here", what=f"corpus: {name!r}: {path}: no such file or folder",
            remedy="the corpus is built on the machine where `raysplit run` runs; the text must be there",
        )
        for name, path in missing
    ]  # fmt: skip
    return findings, where


@click.command()
@click.argument("space_file", metavar="SPACE", type=click.Path(path_type=Path))
@click.option("--out", required=True, help="Run folder on the cluster, on storage that its nodes share.")
@dashboard_option
@click.option("--http", "http_address", help="Have the law served there, by the head: 0.0.0.0:8350.")
@wait_for_end_option
@click.argument("options", nargs=-1)
def submit(
    space_file: Path, out: str, address: str | None, http_address: str | None, wait: bool, options: tuple[str, ...]
) -> None:
    """Hand SPACE to a cluster as a job that runs `raysplit run` there, and come back.

    What stands after `--` is given to `raysplit run`. The same line again continues a job that has ended, and follows
    one that runs. `raysplit stop` ends it in order.
    """
    say_reaching(address)
    from raysplit.sweep.jobs import SubmittedRun

    run = SubmittedRun.of(space_file, out, options=(("--http", http_address) if http_address else ()) + options)
    _hand_in(run, address, wait=wait)


@click.command()
@click.argument("out", metavar="RUN")
@dashboard_option
@wait_for_end_option
@click.argument("options", nargs=-1)
def resume(out: str, address: str | None, wait: bool, options: tuple[str, ...]) -> None:
    """Go on with the sweep in a cluster's run folder, by the search space that lies there: from any machine.

    To go on with other machines, submit the changed SPACE instead. What stands after `--` is given to `raysplit run`.
    """
    say_reaching(address)
    from raysplit.sweep.jobs import SubmittedRun

    _hand_in(SubmittedRun.of(None, out, options=options), address, wait=wait)


def _hand_in(run: "SubmittedRun", address: str | None, *, wait: bool) -> None:
    from raysplit.sweep.jobs import SubmittedJobs

    jobs = SubmittedJobs.at(address)
    job = jobs.running_in(run.run_folder)
    if job is None:
        job = jobs.submit(run)
        show(f"submitted: job {job}, run folder {run.run_folder}")
    else:
        show(f"runs already: job {job}, run folder {run.run_folder}")
    show(f"raysplit stop {run.run_folder} ends it in order; the same command continues it")
    if wait:
        sys.exit(0 if jobs.follow(job, tell=lambda text: click.echo(text, nl=False)) else 1)


@click.command()
@click.argument("out", metavar="RUN")
@dashboard_option
@click.option("--json", "output", flag_value="json", default="text", help="Print it as JSON.")
def stop(out: str, address: str | None, output: str) -> None:
    """End a submitted sweep in order; everything measured is kept, and `raysplit submit` continues it."""
    say_reaching(address)
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
