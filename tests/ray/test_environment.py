"""A sweep in the environments that people start it from, and the word that they get when it cannot be."""

from pathlib import Path

import pytest

from tests.ray.conftest import Sweep
from tests.ray.sweeps import Command, losses, start, tiny_space, write_space

HOSTILE = {
    # A shell under mpirun, and one under torchrun.
    "OMPI_COMM_WORLD_SIZE": "1",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "RANK": "3",
    "LOCAL_RANK": "3",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "head.invalid",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "AZUREML_EXPERIMENT_ID": "1",
    # Of a Ray cluster that is gone, and of a batch job.
    "RAY_ADDRESS": "127.0.0.1:1",
    "TMPDIR": "/tmp/" + "slurm_jobdir_" * 10,
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONHASHSEED": "0",
    "PYTHONWARNINGS": "error::DeprecationWarning",
}


def test_what_other_launchers_left_breaks_no_lane_of_two_workers(run: Sweep, uninterrupted: Path) -> None:
    """They train what one worker does."""
    command = run(
        "sweep",
        run="hostile",
        changes={
            "model": {"sizes": ["14k"]},
            "sweep": {"pretrain_tokens": [8192], "specialize_tokens": [4096]},
            "compute": {"lanes": 1, "workers_per_lane": 2},
        },
        **HOSTILE,
    )
    status, said = command.end()
    measured, alone = losses(command.out), losses(uninterrupted)
    assert len(measured) == 3, said
    for at, together in measured.items():
        assert together == pytest.approx(alone[at], rel=1e-4)
    assert status in (0, 2), said  # a law may want more points than these
    assert "Ray's sockets and logs are in " in said
    assert "TMPDIR is too long for sockets" in said
    command.wait_until_gone()


def test_what_ends_every_lane_is_said_in_a_line(
    ray_address: str, home: Path, tmp_path: Path, commands: list[Command]
) -> None:
    space = write_space(tmp_path / "space.yaml", tiny_space(home / "texts", compute={"lanes": 1}))
    command = start(space, tmp_path, ray_address, out=tmp_path, cwd=home, module="tests.ray.failing_lane")
    commands.append(command)
    status, said = command.end()
    assert status == 0, said
    log = tmp_path / "ray" / "lane-2.log"
    assert said.startswith(f"lanes could not start 3 times in a row: CorpusError: {tmp_path / 'nowhere'}")
    assert str(log) in said
    assert said.count("\n") == 1
    assert "Traceback" in log.read_text()
