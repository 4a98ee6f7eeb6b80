"""Does cluster/local.yaml go from `ray up` to `ray down` as it is shipped? Its nodes are network namespaces.

    sudo .venv/bin/python benchmarks/cluster/namespaces.py --out /var/tmp/namespaces      # ten minutes on two cores

It needs root, and Debian's openssh-server, rsync, iproute2 and tini. Each node has a network, processes, a host name, a
home, /tmp and /dev/shm of its own, and an sshd on port 22 with a throwaway key. All share the folder /shared. The
environment of 2.6 GB is not installed on each node: `make` there is `true`, and ~/raysplit/.venv leads to this one.
Addresses and the key are filled into the file, and nothing else is changed.

Every step is a line of OUT/namespaces.txt, with whether it went well; OUT/said.log has all output. The status is 0
where every step went well.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.ray.sweeps import records, tiny_space, write_space, write_texts

REPOSITORY = Path(__file__).parents[2]
NAMES = ("client", "head", "one", "two")
BRIDGE, NETWORK = "raysplit0", "10.77.0"
USER, UID = "ubuntu", 0
"""As local.yaml has it; root by another name, so that an environment in anybody's home can be shared."""
SHARED = Path("/shared")


class Steps:
    """Runs what a person would type, and keeps what came of it."""

    def __init__(self, log: Path) -> None:
        self._log, self._failed = log, 0
        log.write_text(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n\n")

    def tell(self, line: str) -> None:
        print(line, flush=True)
        with self._log.open("a") as file:
            file.write(line + "\n")

    def check(self, what: str, is_so: bool, more: str = "") -> None:
        self._failed += not is_so
        self.tell(f"{'as wanted' if is_so else 'NOT AS WANTED'}: {what}{': ' + more if more else ''}")

    @property
    def all_well(self) -> bool:
        return not self._failed


def address(name: str) -> str:
    return f"{NETWORK}.{NAMES.index(name) + 2}"


def run(*command: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), check=check, text=True, capture_output=True, **options)


def make_network() -> None:
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "up")
    for name in NAMES:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"v-{name}", "master", BRIDGE, "up")
        run("ip", "-n", name, "addr", "add", f"{address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")


def end_network() -> None:
    """With everything that runs in it; also what a call that was killed has left."""
    for name in NAMES:
        for pid in run("ip", "netns", "pids", name, check=False).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "link", "del", f"v-{name}", check=False)
        run("ip", "netns", "del", name, check=False)
    run("ip", "link", "del", BRIDGE, check=False)


BOOT = """
set -e
mount --make-rprivate /
for place in /tmp /run /dev/shm /home; do mount -t tmpfs -o mode=1777 none $place; done
mkdir -p /home/{user} /run/sshd
mkdir -p /shared; mount --bind {shared} /shared
for file in passwd group shadow; do cp /etc/$file /run/$file; done
grep -q '^{user}:' /run/passwd || {{
  sed -i '1i {user}:x:{uid}:{uid}::/home/{user}:/bin/bash' /run/passwd  # first: ssh asks whose ~ a number has
  echo '{user}:x:{uid}:' >> /run/group
  echo '{user}:*:19000:0:99999:7:::' >> /run/shadow; }}
for file in passwd group shadow; do mount --bind /run/$file /etc/$file; done
printf '127.0.0.1 localhost\\n{address} {name}\\n' > /run/hosts; mount --bind /run/hosts /etc/hosts
mount --bind /bin/true "$(command -v make)"
mkdir -p /home/{user}/raysplit; ln -s {venv} /home/{user}/raysplit/.venv
echo 'export PYTHONPATH=$HOME/raysplit RAY_worker_niceness=0' > /home/{user}/.bashrc
printf '. ~/.bashrc\\n' > /home/{user}/.profile
ssh-keygen -q -t ed25519 -N '' -f /run/host_key
cp {key}.pub /run/authorized; chown -R {uid}:{uid} /home/{user}
hostname {name}
exec /usr/sbin/sshd -D -e -h /run/host_key -o PermitRootLogin=yes -o UsePAM=no -o StrictModes=no \\
  -o AuthorizedKeysFile=/run/authorized
"""


def boot(name: str, *, shared: Path, key: Path, venv: Path, log: Path) -> subprocess.Popen[bytes]:
    script = BOOT.format(
        user=USER, uid=UID, shared=shared, key=key, venv=venv, name=name, address=address(name)
    )  # fmt: skip
    return subprocess.Popen(
        ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc",
         "tini", "-s", "--", "bash", "-c", script],
        stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--venv", type=Path, default=Path(sys.executable).parents[1], help="what the nodes share")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    steps = Steps(out / "namespaces.txt")
    nodes: dict[str, subprocess.Popen[bytes]] = {}
    end_network()
    Path("/tmp/ray/cluster-raysplit.state").unlink(missing_ok=True)  # where `ray up` keeps what a local cluster has
    try:
        make_network()
        play(out, arguments.venv.resolve(), steps, nodes)
    finally:
        for node in nodes.values():
            node.kill()
        end_network()
    sys.exit(0 if steps.all_well else 1)


def play(out: Path, venv: Path, steps: Steps, nodes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Everything that the README of cluster/ tells a person to do."""
    home, shared, file = out / "client", out / "shared", out / "local.yaml"
    home.mkdir()
    shared.mkdir()
    write_texts(shared / "texts")
    key = home / ".ssh" / "id_ed25519"
    key.parent.mkdir(mode=0o700)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    run("chmod", "-R", "a+rwX", shared)
    for name in NAMES[1:]:
        nodes[name] = boot(name, shared=shared, key=key, venv=venv, log=out / f"{name}.log")
    config = yaml.safe_load((REPOSITORY / "cluster" / "local.yaml").read_text())
    config["provider"] |= {"head_ip": address("head"), "worker_ips": [address("one"), address("two")]}
    config["auth"]["ssh_private_key"] = str(key)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    environment = {
        "HOME": str(home), "PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY),
        "RAY_AUTH_MODE": "token", "RAY_UP_enable_autoscaler_v2": "0", "LANG": "C.UTF-8", "TERM": "dumb",
    }  # fmt: skip
    here = ["ip", "netns", "exec", "client"]

    def say(*command: object, status: int = 0, seconds: float = 900) -> str:
        started = time.monotonic()
        try:
            done = run(*here, *command, check=False, env=environment, cwd=REPOSITORY, timeout=seconds)
            told, ended = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired as error:
            told, ended = str(error.stdout or ""), -1
        last = [line for line in told.splitlines() if line.strip()][-3:]
        words = " ".join(str(word) for word in command)
        with (out / "said.log").open("a") as file:
            file.write(f"$ {words}\n{told}\n")
        steps.check(f"`{words}` ({time.monotonic() - started:.0f} s)", ended == status, f"status {ended}")
        for line in last if ended == status else told.splitlines()[-40:]:
            steps.tell(f"    {line}")
        return told

    for name in NAMES[1:]:
        wait_until(lambda name=name: run(*here, "ssh-keyscan", address(name), check=False).stdout != "", 60)
    run(*here, "ray", "get-auth-token", "--generate", env=environment)  # nobody else is to read it
    say("ray", "up", "-y", file, "--no-config-cache")
    if not steps.all_well:
        return

    def on_head(command: str, **options: Any) -> str:
        return say("ray", "exec", "--no-config-cache", file, command, **options)

    started = time.monotonic()
    count = 'python -c \'import ray; ray.init("auto", log_to_driver=False); print(len(ray.nodes()), "nodes")\''
    wait_until(lambda: "3 nodes" in run(*here, "ray", "exec", "--no-config-cache", file, count, check=False,
                                        env=environment).stdout, 900)  # fmt: skip
    steps.tell(f"all three nodes after another {time.monotonic() - started:.0f} s")
    # Long enough to be watched and stopped in the middle.
    longer = {"pretrain_tokens": [65_536, 131_072, 262_144], "specialize_tokens": [16_384, 32_768, 65_536]}
    sizes = {"sizes": ["14k", "28k", "56k"]}
    tiny = tiny_space(SHARED / "texts", model=sizes, sweep=longer, target={"budget_flops": 5e10}, compute={"lanes": 2})
    space = write_space(out / "space.yaml", tiny)
    shutil.copy(space, shared / "space.yaml")
    on_head("raysplit doctor /shared/space.yaml --out /shared/first --ray-address auto || test $? = 1")
    tunnel = subprocess.Popen(
        [*here, "ssh", "-N", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", str(key),
         "-L", "8265:localhost:8265", f"{USER}@{address('head')}"],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        outside = ["--address", "http://localhost:8265"]
        wait_until(lambda: run(*here, "bash", "-c", "</dev/tcp/localhost/8265", check=False).returncode == 0, 60)
        raysplit = [venv / "bin" / "python", "-m", "raysplit"]
        say(*raysplit, "submit", space, "--out", "/shared/first", *outside)
        wait_until(lambda: len(records(shared / "first", "measurement")) >= 4, 900)
        say(*raysplit, "status", "/shared/first", *outside)
        say("timeout", "--signal=INT", "45", *raysplit, "watch", "/shared/first", *outside, status=124)
        run_on(nodes["two"], f"cd ~; . ~/.bashrc; {venv}/bin/raysplit status /shared/first", steps)
        say(*raysplit, "stop", "/shared/first", *outside)
        n_measured = len(records(shared / "first", "measurement"))
        steps.check("the law has ended with its sweep", not (shared / "first" / "live.json").exists())
        nodes.pop("two").kill()  # one node fewer
        for pid in run("ip", "netns", "pids", "two", check=False).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        say(*raysplit, "resume", "/shared/first", *outside, "--", "--yes")
        wait_until(lambda: (shared / "first" / "advice.json").exists(), 900)
        steps.check("what was measured is kept", len(records(shared / "first", "measurement")) >= n_measured)
        say(*raysplit, "advise", "/shared/first", *outside)
        say(*raysplit, "stop", "/shared/first", *outside)
    finally:
        tunnel.kill()
    say("ray", "down", "-y", file)
    started = time.monotonic()
    with suppress(TimeoutError):
        wait_until(lambda: not rays(), 180)
    steps.check(
        f"no process of Ray's is left on any node, {time.monotonic() - started:.0f} s later", not rays(),
        "; ".join(rays())[:500],
    )  # fmt: skip


def rays() -> list[str]:
    """What Ray still runs on the nodes. A raylet waits for its lost head, by Ray's default 60 s, before it ends."""
    return [
        line
        for name in NAMES[1:]
        for pid in run("ip", "netns", "pids", name, check=False).stdout.split()
        if any(word in (line := title(int(pid))) for word in ("raylet", "gcs_server", "ray::", "ray/dashboard"))
    ]


def run_on(node: subprocess.Popen[bytes], command: str, steps: Steps) -> None:
    """As a colleague who is logged in on a node does."""
    [inside] = run("pgrep", "-P", node.pid).stdout.split()[:1]  # unshare's child, the node's first process
    enter = ["nsenter", "--target", inside, "--mount", "--pid", "--uts", "--ipc", "--net", "--setuid", str(UID)]
    done = run(*enter, "env", f"HOME=/home/{USER}", "RAY_AUTH_MODE=token", "bash", "-c", command, check=False)
    steps.check(f"on another node: `{command.rpartition('; ')[2]}`", done.returncode == 0, done.stdout.strip()[-300:])


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def wait_until(ready: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError("did not get there")
        time.sleep(1)


if __name__ == "__main__":
    main()
