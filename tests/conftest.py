"""What every test shares: one thread, no network, fixed seeds, and the tables that some tests read.

Tests are modules of the package `tests`, one folder (with an ``__init__.py``) for each room; helpers are imported as
``from tests.<room>.<module> import ...``. Hypothesis draws the same examples on every run;
``HYPOTHESIS_PROFILE=explore`` looks for new ones.
"""

import os

# Read when the libraries load, so set before any of them does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray has 15, and a lane starts in minutes beside the other tests

import gc
import random
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# A shell that starts a command in the background, as a script does, has it ignore Ctrl-C; nohup has it ignore SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

REPOSITORY = Path(__file__).resolve().parent.parent

LONG = bool(os.environ.get("RAYSPLIT_LONG_TESTS"))
"""Some tests then repeat more often what they prove; `make proofs` runs those."""

settings.register_profile("same", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


OWN_CLUSTERS = ("tests/ray/test_jobs.py", "tests/ray/test_raylets.py")
SHARED_CLUSTER = ("tests/ray/", "tests/discover/test_discovery.py")


def turn_of(nodeid: str) -> int:
    """When a test is begun: what takes minutes before what takes seconds, so that all processes end together.

    Those that share one cluster and its sweeps are 0, and one process runs them all, from the beginning. Those that
    start clusters of their own are 1: another process begins with them.
    """
    if nodeid.startswith(OWN_CLUSTERS):
        return 1
    return 0 if nodeid.startswith(SHARED_CLUSTER) else 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files to the processes of ``--numprocesses``, and to one of them all that needs the shared Ray cluster."""
    from xdist.scheduler import LoadScopeScheduling  # only where it runs

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0] if turn_of(nodeid) else SHARED_CLUSTER[0]

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: turn_of(item.nodeid))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Fix the global generators; torch's only where the test, or one before it, has loaded torch."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Give a test's signals back: Ray Tune keeps Ctrl-C's handler after a run, and swallows the next one."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def free_port() -> int:
    """Free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """HOST:PORT of an S3 on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the work tree, where search_spaces/ and cluster/ lie."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of published run tables: RAYSPLIT_SHARED_DATA, or shared/data beside the repository; else skips."""
    folder = Path(os.environ.get("RAYSPLIT_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set RAYSPLIT_SHARED_DATA to the published run tables")
    return folder


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Ray cluster on this machine that outlives the sweeps run on it; three CPUs."""
    import ray

    if " " in sys.executable:
        pytest.skip("Ray 2.60 starts no workers on a cluster whose Python lies in a path with spaces")
    with pytest.MonkeyPatch.context() as patch:
        # Two clusters on a machine: commands must go by the address that they are given.
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "namespace": "raysplit"}
        for n_left in (2, 1, 0):
            with _loose_ends():
                try:
                    ray.init(address="local", num_cpus=3, **options)
                    break
                except Exception:  # Ray gives its node 30 s to start, which a busy machine does not keep
                    ray.shutdown()
                    if not n_left:
                        raise
        yield ray.get_runtime_context().gcs_address
        with _loose_ends():
            ray.shutdown()


@pytest.fixture(scope="session")
def expert_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its corpus, a seed and two experts, which no test changes."""
    from tests.experts.tiny_runs import make_run

    return make_run(tmp_path_factory.mktemp("experts") / "run")


@contextmanager
def _loose_ends() -> Iterator[None]:
    """Ray drops handles of its own processes and log files without closing them: a warning each, which are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
