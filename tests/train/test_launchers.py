"""Other launchers' variables are taken out of an environment; the rest stays."""

from raysplit.train.launchers import forget_launchers


def test_launchers_are_forgotten_and_the_rest_is_kept() -> None:
    kept = {
        "PATH": "/bin",
        "PYTHONPATH": "/home/me",
        "OMP_NUM_THREADS": "4",
        "MPLBACKEND": "agg",
        "SLURM_JOB_ID": "7",
        "NCCL_SOCKET_IFNAME": "eth0",
        "AZUREML_RUN_TOKEN": "of the tracker, not of a launcher",
    }
    launchers = dict.fromkeys(
        (
            "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_RANK", "PMIX_NAMESPACE", "MV2_COMM_WORLD_RANK", "MPI_LOCALRANKID",
            "TORCHELASTIC_USE_AGENT_STORE", "ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING", "RANK",
            "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_SIZE", "AZUREML_EXPERIMENT_ID",
            "SM_TRAINING_ENV", "DLTS_JOB_ID",
        ),
        "1",
    )  # fmt: skip
    environment = {**kept, **launchers}
    assert sorted(forget_launchers(environment)) == sorted(launchers)
    assert environment == kept
    assert forget_launchers(environment) == []
