"""Run as a script, each in a process of its own: the tools themselves record runs, as a user's training would.

python -m tests.imports.recorders mlflow FOLDER
"""

import sys
from pathlib import Path

from tests.imports.layouts import RUNS, settings_of


def record_with_mlflow(folder: Path) -> None:
    """Two finished runs whose last step was not logged last, one that failed, and one that was deleted."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    for experiment, run in zip(("small", "large"), RUNS, strict=True):
        mlflow.create_experiment(experiment, artifact_location=str(folder / "mlruns"))
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=f"run-{experiment}"):
            settings = settings_of(run)
            mlflow.log_params({"model/n_params": settings.pop("model")["n_params"], **settings})
            mlflow.set_tag("team", "nlp")
            mlflow.log_metric("eval/loss", run["loss"], step=20)
            mlflow.log_metric("eval/loss", 9.5, step=10)
            mlflow.log_metric("train_loss", 1.5, step=20)
    with mlflow.start_run(run_name="failed"):
        mlflow.log_metric("eval/loss", float("inf"), step=20)
        mlflow.end_run("FAILED")
    with mlflow.start_run(run_name="deleted") as deleted:
        pass
    mlflow.delete_run(deleted.info.run_id)
    mlflow.search_runs(search_all_experiments=True).to_csv(folder / "search_runs.csv", index=False)


def record_with_wandb(folder: Path) -> None:
    """Two finished runs and one that failed, offline."""
    import wandb

    for i, (run, code) in enumerate(zip((*RUNS, RUNS[0]), (0, 0, 1), strict=True)):
        recorded = wandb.init(
            mode="offline", project="scaling", dir=folder, name=f"run-{i}", config=settings_of(run)
        )  # fmt: skip
        recorded.log({"eval/loss": 9.5, "train/loss": 1.5})
        recorded.log({"eval/loss": run["loss"]})
        recorded.finish(exit_code=code)


if __name__ == "__main__":
    {"mlflow": record_with_mlflow, "wandb": record_with_wandb}[sys.argv[1]](Path(sys.argv[2]))
