"""Variables that another launcher left in the environment, where raysplit runs under mpirun, torchrun or a cloud's job.

DeepSpeed, torch and transformers take their ranks from such variables, which are of a job that is not the lane's. A
lane's own (RANK, WORLD_SIZE, MASTER_ADDR, ...) are set afterwards, by Ray Train or by whoever starts the engine.
"""

import os
from collections.abc import MutableMapping

PREFIXES = (
    "OMPI_",  # Open MPI: DeepSpeed 0.19 ends where OMPI_COMM_WORLD_LOCAL_RANK is not LOCAL_RANK
    "PMI_",  # MPICH, Intel MPI, Cray: what mpi4py starts up by
    "PMIX_",
    "MV2_COMM_WORLD_",  # MVAPICH2
    "MPI_LOCAL",  # Intel MPI's MPI_LOCALRANKID, MPI_LOCALNRANKS
    "TORCHELASTIC_",  # TORCHELASTIC_USE_AGENT_STORE has every rank wait for torchrun's store
    "ACCELERATE_",  # `accelerate launch`: transformers loads weights on one rank only under ACCELERATE_USE_FSDP
    "FSDP_",
)
NAMES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "NODE_RANK",
    "CROSS_RANK", "CROSS_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT",
    # By these DeepSpeed recognises Azure ML, SageMaker and DLTS, and takes its ranks from Open MPI's variables.
    "AZUREML_EXPERIMENT_ID", "SM_TRAINING_ENV", "DLTS_JOB_ID", "DLWS_JOB_ID",
)  # fmt: skip


def forget_launchers(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Remove other launchers' variables from an environment; returns their names."""
    found = [name for name in environment if name in NAMES or name.startswith(PREFIXES)]
    for name in found:
        del environment[name]
    return found
