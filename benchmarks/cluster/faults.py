"""What do faults of a cluster do to a small real sweep and its answer? Each fault is done on purpose, three times.

    python benchmarks/cluster/faults.py --out /var/tmp/faults                  # all that is missing
    python benchmarks/cluster/faults.py --out /var/tmp/faults --row node-lost --times 1 --minutes 14

A repetition takes two to five minutes. The cluster is a head and three nodes of one CPU each, all raylets of this
machine; two lanes train the sweep of the tests (20 points of real text). Each repetition is a line of
OUT/results.jsonl, so that the script goes on where it was ended. OUT/table.txt is made of all of them. What the command
said, and when, is in OUT/ROW-TIME.log. Rows with
storage need root, for mounts. `head-restart` needs Debian's redis-server.

Time is counted from the command's start to its end, whatever the script still does after that. Two sweeps on the same
machines train twice as much: they are held against two undisturbed sweeps one after the other. What is lost beyond the
time away can be less than 0, since lanes train meanwhile. The last two lines are medians over all faults that were run.

Columns of the table:

n             repetitions
ended         those that ended by themselves; where driver or head was lost, by the same command again
again         those in which the command was given again
lost          acknowledged observations that were lost or changed (a sum); should be 0
verdicts      trials that were closed because of a machine (a sum); should be 0
equal         those whose losses and advice equal those of the undisturbed sweep
left          those that left something on the cluster; should be 0
seconds lost  until the command ended, against the median of the undisturbed sweep: median (least to most)
of it away    seconds of these in which this script itself kept storage or head away, or started another cluster: median
silence       longest time, seconds, in which the command printed nothing after its lanes had started
load          load average of the machine
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from raysplit.corpus import build_corpus
from raysplit.space import parse_space
from tests.conftest import free_port
from tests.ray.sweeps import behind_a_proxy, losses, marked_processes, records, tiny_space, write_space, write_texts

MARK = "RAYSPLIT_FAULTS"
PATIENCE_SECONDS = 300.0
FAULT_AT = 5
"""Measurements."""
NODES = ("one", "two", "three")


@dataclass
class Cluster:
    """A head and nodes, each a group of processes known by a mark."""

    temp: Path
    is_kept: bool = False
    """Whether the head keeps its tables in Redis."""
    more: tuple[str, ...] = ()
    """Nodes beside the usual ones."""
    port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: uuid4().hex[:12])
    redis: subprocess.Popen[bytes] | None = None
    redis_port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environment(self, node: str) -> dict[str, str]:
        kept = {name: value for name, value in behind_a_proxy().items() if not name.startswith("RAY_")}
        here = kept | {
            MARK: f"{self.mark}-{node}-", "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(self.temp),
            "RAY_worker_niceness": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "120",
        }  # fmt: skip
        if self.is_kept:
            here["RAY_REDIS_ADDRESS"] = f"127.0.0.1:{self.redis_port}"
        return here

    def start(self) -> None:
        if self.is_kept and self.redis is None:
            command = ["redis-server", "--port", str(self.redis_port), "--save", "", "--appendonly", "no"]
            self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self.environment("redis"))
        self.start_head()
        for node in (*NODES, *self.more):
            self.start_node(node)

    def start_head(self) -> None:
        # Ray takes the other raylets of this machine for a head that runs already, if it is reminded of the address.
        (self.temp / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        self._ray(
            "head", "--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}",
        )  # fmt: skip

    def start_node(self, node: str) -> None:
        stable = ["--resources", json.dumps({"raysplit_stable": 1})] if node.startswith("stable") else []
        cpus = 0 if node.startswith("stable") else 1
        self._ray(node, f"--address={self.address}", f"--num-cpus={cpus}", *stable)

    def _ray(self, node: str, *options: str) -> None:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--disable-usage-stats", *options]
        for _ in range(3):  # a busy machine is slower than Ray waits for
            done = subprocess.run(
                command, env=self.environment(node), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return
            self.kill(node)
        raise RuntimeError(done.stdout)

    def processes(self, node: str = "", name: str = "") -> list[int]:
        found = marked_processes(f"{self.mark}-{node}-" if node else f"{self.mark}-")
        return [pid for pid, title in found.items() if name in title]

    def kill(self, node: str, name: str = "") -> None:
        """All at once, as when the power goes."""
        for pid in self.processes(node, name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def node_of(self, name: str) -> str:
        """The node on which a process of such a title runs."""
        return next(node for node in ("head", *NODES, *self.more) if self.processes(node, name))

    def node_id(self, node: str) -> str:
        """Ray's own, as the raylet's command line has it."""
        [raylet] = self.processes(node, "raylet/raylet")
        words = Path(f"/proc/{raylet}/cmdline").read_text().split("\0")
        return next(word.partition("=")[2] for word in words if word.startswith("--node_id"))

    def ask(self, code: str) -> str:
        """What a driver on the cluster prints, without what Ray itself prints of machines."""
        told = subprocess.run(
            [sys.executable, "-c", "import functools, sys, ray\nprint = functools.partial(print, file=sys.stdout)\n"
             f"sys.stdout = sys.stderr\nray.init(address='{self.address}', namespace='raysplit', log_to_driver=False, "
             f"logging_level='ERROR')\n{code}"],
            env=self.environment("asker"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=90,
            check=False,
        )  # fmt: skip
        return told.stdout.strip()

    def stop(self) -> None:
        self.kill("")
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait()


@dataclass
class Driver:
    """`raysplit sweep`, with the time of each line that it prints."""

    cluster: Cluster
    space: Path
    out: Path
    node: str = "driver"
    lines: list[tuple[float, str]] = field(default_factory=list)
    ended: float = 0.0
    """When its output ended, on the clock of the lines."""

    def start(self) -> "Driver":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raysplit", "sweep", str(self.space), "--out", str(self.out), "--ray-address",
             self.cluster.address],
            env={**self.cluster.environment(self.node), "COLUMNS": "200"}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))
        self.ended = time.monotonic()

    def wait_for(self, n_measured: int) -> None:
        wait_until(lambda: len(records(self.out, "measurement")) >= n_measured or self.process.poll() is not None)

    def end(self) -> int | None:
        """Its status; None where it has not ended within the patience."""
        try:
            status = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        self._reader.join(10)
        self.ended = self.ended or time.monotonic()
        return status

    def longest_silence(self) -> float:
        """From the word that lanes start on, until the end."""
        began = next((i for i, (_, line) in enumerate(self.lines) if "lanes of DeepSpeed" in line), len(self.lines))
        times = [at for at, _ in self.lines[began:]]
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def wait_until(ready: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError("did not get there")
        time.sleep(0.1)


@dataclass
class Scene:
    """One repetition: the cluster, the command, and what a row may do to them."""

    cluster: Cluster
    driver: Driver
    storage: Path
    """For checkpoints."""
    known: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    """What had been acknowledged just before."""
    again: int = 0
    """Times that the same command was said again."""
    notes: list[str] = field(default_factory=list)
    away_seconds: float = 0.0
    """How long the script itself has kept away what the sweep needs."""
    last_end: float = 0.0
    """When the last of other commands ended."""

    @contextmanager
    def away(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.away_seconds += time.monotonic() - began

    def at_fault(self) -> None:
        self.driver.wait_for(FAULT_AT)
        self.known = losses(self.driver.out)

    def say_again(self) -> None:
        self.again += 1
        before = self.driver
        self.driver = Driver(self.cluster, before.space, before.out, lines=before.lines).start()

    def worker(self) -> int:
        """A rank at work."""
        found: list[int] = []

        def look() -> bool:
            found[:] = self.cluster.processes("", "RayTrainWorker")
            return bool(found)

        wait_until(look, 60)
        return found[0]


# Rows, each a function of a scene whose sweep has just started.


def undisturbed(scene: Scene) -> None: ...


def worker_death(scene: Scene) -> None:
    scene.at_fault()
    os.kill(scene.worker(), signal.SIGKILL)


def node_lost(scene: Scene) -> None:
    scene.at_fault()
    scene.cluster.kill(scene.cluster.node_of("RayTrainWorker"))


def preemption(scene: Scene) -> None:
    """With 25 s of notice, as spot machines are taken away; another one joins a little later."""
    scene.at_fault()
    node = scene.cluster.node_of("RayTrainWorker")
    drain = [
        str(Path(sys.executable).parent / "ray"), "drain-node", "--address", scene.cluster.address, "--node-id",
        scene.cluster.node_id(node), "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
        "--deadline-remaining-seconds", "25",
    ]  # fmt: skip
    noticed = time.monotonic()
    subprocess.run(drain, env=scene.cluster.environment("asker"), check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: not scene.cluster.processes(node, "RayTrainWorker") or time.monotonic() > noticed + 25, 60)
    scene.notes.append(f"the lane had left after {time.monotonic() - noticed:.0f} s of the 25 s")
    time.sleep(max(0.0, noticed + 25 - time.monotonic()))
    scene.cluster.kill(node)
    scene.cluster.start_node(f"{node}-again")


def head_lost(scene: Scene) -> None:
    """For good: another cluster, and the same command there."""
    scene.at_fault()
    scene.cluster.kill("head")
    status = scene.driver.end()
    scene.notes.append(f"the command ended with {status}: {_last(scene.driver)}")
    with scene.away():
        scene.cluster.stop()
        scene.cluster = Cluster(scene.cluster.temp)
        scene.cluster.start()
    scene.say_again()


def head_restart(scene: Scene) -> None:
    """Its tables are in Redis; it comes back at the same address after some seconds, and nodes and driver stay."""
    scene.at_fault()
    with scene.away():
        scene.cluster.kill("head")
        time.sleep(5)
        scene.cluster.start_head()
    if _ended_early(scene):
        scene.say_again()


def stable_node_lost(scene: Scene) -> None:
    """Where law, broker and lane hosts live; another stable node is there."""
    scene.at_fault()
    scene.notes.append(f"lane hosts were on {scene.cluster.node_of('LaneHost')}")
    scene.cluster.kill(scene.cluster.node_of("LaneHost"))
    if _ended_early(scene):
        scene.say_again()


def driver_lost(scene: Scene) -> None:
    scene.at_fault()
    scene.driver.process.kill()
    scene.driver.end()
    scene.say_again()


def storage_read_only(scene: Scene) -> None:
    """For 30 s."""
    scene.at_fault()
    with scene.away():
        subprocess.run(["mount", "-o", "remount,ro", str(scene.storage)], check=True)
        time.sleep(30)
        subprocess.run(["mount", "-o", "remount,rw", str(scene.storage)], check=True)


def storage_full(scene: Scene) -> None:
    """For 30 s, checkpoints and journal alike."""
    scene.at_fault()
    filler = scene.storage / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
    with suppress(OSError), (scene.storage / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(b"0")
    with scene.away():
        time.sleep(30)
        filler.unlink()
        (scene.storage / "rest").unlink()


def storage_slow(scene: Scene) -> None:
    """Nothing that is written comes back for 20 s: the file system is frozen, twice."""
    scene.at_fault()
    for _ in range(2):
        with scene.away():
            subprocess.run(["fsfreeze", "--freeze", str(scene.storage)], check=True)
            time.sleep(20)
            subprocess.run(["fsfreeze", "--unfreeze", str(scene.storage)], check=True)
        time.sleep(10)


def hung_rank(scene: Scene) -> None:
    """Of a lane with one: SIGSTOP, so that its process lives and says nothing."""
    scene.at_fault()
    stopped, began = scene.worker(), time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    wait_until(lambda: not Path(f"/proc/{stopped}").exists() or scene.driver.process.poll() is not None)
    scene.notes.append(f"found and ended after {time.monotonic() - began:.0f} s")


def two_sweeps(scene: Scene) -> None:
    """Another one on the same cluster, which must end as well; its machines are taken in turns."""
    scene.driver.wait_for(2)
    other = Driver(scene.cluster, scene.driver.space, scene.driver.out.with_name("other"), node="other")
    shutil.copytree(scene.driver.out / "corpus", other.out / "corpus")
    other.start()
    scene.at_fault()
    status = other.end()
    scene.last_end = other.ended
    scene.notes.append(f"the other: status {status}, the same losses: {status == 0 and losses(other.out)}")
    if status == 0 and scene.driver.end() == 0:
        scene.notes[-1] = f"the other: status 0, the same losses: {losses(other.out) == losses(scene.driver.out)}"


ROWS: dict[str, Callable[[Scene], None]] = {
    # What the other rows are held against comes first.
    "undisturbed": undisturbed,
    "undisturbed-of-two": undisturbed,
    "worker-death": worker_death,
    "node-lost": node_lost,
    "preemption-notice": preemption,
    "hung-rank": hung_rank,
    "hung-collective": hung_rank,
    "driver-lost": driver_lost,
    "stable-node-lost": stable_node_lost,
    "storage-read-only": storage_read_only,
    "storage-full": storage_full,
    "storage-slow": storage_slow,
    "two-sweeps": two_sweeps,
    "head-restart": head_restart,
    "head-lost": head_lost,
}
COLLECTIVE = "hung-collective"
"""One lane of two workers; its undisturbed sweep is a row of its own."""
REFERENCES = {COLLECTIVE: "undisturbed-of-two"}
SWEEPS = {"two-sweeps": 2}
"""Sweeps of a row whose training counts, where that is more than one."""


def _ended_early(scene: Scene) -> bool:
    """Whether the command has ended without having finished, as is noted."""
    status = scene.driver.end()
    if status == 0:
        return False
    scene.notes.append(f"the command ended with {status}: {_last(scene.driver)}")
    return True


def _last(driver: Driver) -> str:
    return driver.lines[-1][1] if driver.lines else ""


@contextmanager
def mounted(folder: Path, row: str) -> Iterator[None]:
    """A file system of its own for a row that spoils it."""
    folder.mkdir()
    if not row.startswith("storage"):
        yield
        return
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(200 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
        image.unlink()


def play(row: str, home: Path, references: dict[str, Any]) -> dict[str, Any]:
    """One repetition of a row."""
    work = home / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    storage = work / "storage"
    temp = Path("/tmp") / f"f{uuid4().hex[:6]}"
    temp.mkdir()
    more = ("stable", "stable2") if row == "stable-node-lost" else ()
    cluster = Cluster(temp, is_kept=row == "head-restart", more=more)
    reference = row if row in REFERENCES.values() else REFERENCES.get(row, "undisturbed")
    is_of_two = reference == REFERENCES[COLLECTIVE]
    compute: dict[str, Any] = {"lanes": 1, "workers_per_lane": 2} if is_of_two else {"lanes": 2}
    # Where the journal cannot be written while the checkpoints can, or the other way round, is two rows.
    out = storage / "run" if row in ("storage-full", "storage-slow") else work / "run"
    with mounted(storage, row):
        compute["storage"] = str(storage)
        space = write_space(work / "space.yaml", tiny_space(home / "texts", compute=compute))
        shutil.copytree(home / "corpus", out / "corpus")
        try:
            cluster.start()
            started = time.monotonic()
            scene = Scene(cluster, Driver(cluster, space, out).start(), storage)
            ROWS[row](scene)
            status = scene.driver.end()
            seconds = max(scene.driver.ended, scene.last_end) - started
            cluster = scene.cluster
            found = losses(out)
            answer = json.loads((out / "advice.json").read_text()) if (out / "advice.json").exists() else None
            if status == 0 and row == reference:
                references.setdefault(reference, {"losses": found, "advice": answer})
            expected = references.get(reference, {"losses": None, "advice": None})
            result = {
                "row": row, "time": time.strftime("%Y-%m-%d %H:%M"), "status": status,
                "ended": status == 0, "said_again": scene.again, "seconds": round(seconds, 1),
                "away": round(scene.away_seconds, 1),
                "lost": sum(found.get(at) != value for at, value in scene.known.items()),
                "known": len(scene.known), "verdicts": len(records(out, "failure")),
                "equal": found == expected["losses"] and answer == expected["advice"],
                "left": _left(cluster, out), "silence": round(scene.driver.longest_silence(), 1),
                "load": round(os.getloadavg()[1], 1), "notes": scene.notes,
                "said": [line for _, line in scene.driver.lines][-12:],
            }  # fmt: skip
            said = "".join(f"{at - started:7.1f}  {line}\n" for at, line in scene.driver.lines)
            (home / f"{row}-{time.strftime('%H%M%S')}.log").write_text(said)
        finally:
            cluster.stop()
    time.sleep(2)
    if alive := cluster.processes():
        result["left"].append(f"{len(alive)} processes after all were killed")
    shutil.rmtree(temp, ignore_errors=True)
    return result


def _left(cluster: Cluster, out: Path) -> list[str]:
    """What the sweep has left on the cluster, given some seconds to go."""
    code = """
import time
for _ in range(20):
    time.sleep(1)
    free, all_of_it = ray.available_resources(), ray.cluster_resources()
    left = [n["name"] for n in ray.util.list_named_actors(all_namespaces=True) if n["namespace"] == "raysplit"]
    if free.get("CPU") == all_of_it.get("CPU") and not left:
        break
else:
    print(f"{free.get('CPU')} of {all_of_it.get('CPU')} CPUs free; actors {left}")
"""
    left = [line for line in [cluster.ask(code)] if line]
    workers = cluster.processes("", "RayTrainWorker")
    if workers:
        left.append(f"{len(workers)} ranks")
    if (out / "live.json").exists():
        left.append("live.json")
    return left


def table(results: list[dict[str, Any]]) -> str:
    """Of all repetitions, a line a row."""
    lines = [
        f"{'row':20} {'n':>2} {'ended':>6} {'again':>5} {'lost':>6} {'verdicts':>8} {'equal':>6} {'left':>5} "
        f"{'seconds lost':>18} {'of it away':>10} {'silence':>8} {'load':>10}"
    ]
    medians: list[tuple[float, float]] = []
    for row in ROWS:
        mine = [result for result in results if result["row"] == row]
        if not mine:
            lines.append(f"{row:20}  0  not run")
            continue
        lost, away = _lost(row, results), statistics.median(result["away"] for result in mine)
        said = f"{statistics.median(lost):.0f} ({lost[0]:.0f} to {lost[-1]:.0f})" if lost else ""
        if lost and ROWS[row] is not undisturbed:
            medians.append((statistics.median(lost), away))
        n = len(mine)
        lines.append(
            f"{row:20} {n:2} {sum(r['ended'] for r in mine):4}/{n} {sum(r['said_again'] for r in mine):5} "
            f"{sum(r['lost'] for r in mine):6} {sum(r['verdicts'] for r in mine):8} "
            f"{sum(r['equal'] for r in mine):4}/{n} {sum(bool(r['left']) for r in mine):5} {said:>18} "
            f"{away:10.0f} {max(r['silence'] for r in mine):8.0f} {_loads(mine):>10}"
        )
    if medians:
        lost_seconds = statistics.median(seconds for seconds, _ in medians)
        beyond_seconds = statistics.median(seconds - away for seconds, away in medians)
        lines += [
            "",
            f"seconds lost, median of {len(medians)} faults: {lost_seconds:.0f}",
            f"beyond the time away: {beyond_seconds:.0f}",
        ]
    notes = [f"{r['row']}: {note}" for r in results for note in [*r["notes"], *r["left"]]]
    return "\n".join([*lines, "", *dict.fromkeys(notes)]) + "\n"


def _lost(row: str, results: list[dict[str, Any]]) -> list[float]:
    """Seconds that each repetition of a row lost, rising; none where its undisturbed sweep was not run."""
    reference = row if row in REFERENCES.values() else REFERENCES.get(row, "undisturbed")
    undisturbed_seconds = [result["seconds"] for result in results if result["row"] == reference]
    if not undisturbed_seconds:
        return []
    base = SWEEPS.get(row, 1) * statistics.median(undisturbed_seconds)
    return sorted(result["seconds"] - base for result in results if result["row"] == row)


def _loads(results: list[dict[str, Any]]) -> str:
    """Of this machine in the five minutes before each one's end: what else ran slows a fault's end, too."""
    loads = [result["load"] for result in results if "load" in result]
    return f"{min(loads):.0f} to {max(loads):.0f}" if loads else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--row", choices=ROWS, action="append", help="all when left out; repeat for several")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so long")
    arguments = parser.parse_args()
    home: Path = arguments.out.absolute()
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "texts").exists():
        write_texts(home / "texts")
    if not (home / "corpus").exists():
        build_corpus(parse_space(tiny_space(home / "texts"), origin="faults").corpus, home / "corpus")
    file, kept = home / "results.jsonl", home / "references.json"
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    references = _read_references(kept)
    until = time.monotonic() + 60 * arguments.minutes
    for _ in range(arguments.times):
        for row in arguments.row or ROWS:
            if sum(result["row"] == row for result in results) >= arguments.times or time.monotonic() > until:
                continue
            result = play(row, home, references)
            results.append(result)
            print(json.dumps(result), flush=True)
            with file.open("a") as lines:
                lines.write(json.dumps(result) + "\n")
            kept.write_text(
                json.dumps({name: {**r, "losses": list(r["losses"].items())} for name, r in references.items()})
            )
            (home / "table.txt").write_text(
                f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n\n" + table(results)
            )
    print(table(results))


def _read_references(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return {
        name: {**kept, "losses": {tuple(at): found for at, found in kept["losses"]}}
        for name, kept in json.loads(path.read_text()).items()
    }


if __name__ == "__main__":
    main()
