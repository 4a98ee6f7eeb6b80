"""Do `raysplit eval` and lm-eval 0.4.13's own Hugging Face backend say the same of the same folder?

    .venv/bin/python benchmarks/evaluate/agreement.py [--model FOLDER] [--limit 200] [--softmax float64]     # minutes

Each task's first items go to both. lm-eval gets them as a JSON file under its own task's YAML, of which only the place
of the data is changed. Models are in fp32. Without --model a small Llama is trained for a moment on the standard
library. lm-eval comes with `raysplit[bench]`.

A row is a task. "Largest difference" is that of a choice's log-likelihood, in nats, with the goal of 1e-4. "Differs"
counts items whose accuracies differ, for the plain accuracy and for the one per character; both should be 0. lm-eval
sums log-likelihoods in fp32, which leaves an error of 1e-4 of a thousand nats. With --softmax float64 it sums them as
exactly as we do.
"""

import argparse
import json
import os
import platform
import re
import tempfile
import time
from itertools import islice
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import numpy as np
import torch

from raysplit.corpus import Corpus, build_corpus
from raysplit.evaluate.metrics import figures_of
from raysplit.evaluate.public import BENCHMARKS
from raysplit.evaluate.requests import encode
from raysplit.evaluate.rows import archived_rows, public_task
from raysplit.evaluate.scores import kept_scores
from raysplit.evaluate.subjects import Scores, Subject, outcome
from raysplit.experts.folders import read_experts
from raysplit.experts.loaded import LoadedExpert
from raysplit.experts.tokens import TextTokens
from raysplit.ladder import shape_for
from raysplit.space import CorpusSpec, SourceSpec, TokenizerSpec
from raysplit.train.export import complete_export
from raysplit.train.models import build_model

TASKS = {
    "arc_easy": "arc/arc_easy.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "sciq": "sciq/sciq.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada": "lambada/lambada_openai.yaml",
}
"""Ours -> the file of lm-eval's task."""
CONTEXT = 512


def small_model(folder: Path, *, n_steps: int) -> Path:
    """A Llama of 300k parameters and 2,048 tokens of vocabulary, trained on the standard library for a moment."""
    source = SourceSpec(kind="package", package="python-stdlib", max_bytes=2_000_000)
    spec = CorpusSpec(domains={"code": source}, tokenizer=TokenizerSpec(vocab_size=2048), validation_fraction=0.05)
    corpus: Corpus = build_corpus(spec, folder / "corpus")
    model = build_model(shape_for(300_000, vocab_size=2048, context_length=CONTEXT), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(n_steps):
        start = step * 4 * CONTEXT
        windows = torch.from_numpy(corpus.batch(seed=0, context_length=CONTEXT, start_tokens=start, n_sequences=4))
        logits = model(input_ids=windows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"trained {n_steps} steps, loss {loss.item():.3f}")
    model.save_pretrained(folder / "model")
    complete_export(folder / "model", tokenizer_folder=corpus.tokenizer_path)
    return folder / "model"


def ours(folder: Path, name: str, *, limit: int, scratch: Path) -> tuple[list[list[float]], dict[str, np.ndarray]]:
    """Log-likelihoods of each item's choices, and each accuracy by item."""
    experts = read_experts(folder)
    [model] = experts.folders.values()
    task = public_task(name, data="package", limit=limit)
    requests = encode(task, TextTokens.of(folder), context_length=model.context_length)
    scored = kept_scores(
        model,
        name,
        requests.sequences,
        take=lambda: LoadedExpert(model, device=torch.device("cpu"), precision="fp32"),
        keep_in=scratch / "scores",
        precision="fp32",
        batch_tokens=4096,
        done=lambda n_tokens: None,
    )
    scores = Scores.of(scored, requests)
    subject = Subject(name=model.name, experts=experts, how=model.name)
    found = outcome(subject, task, requests, {model.name: scores}, clusterer=None, labels={}, flops={model.name: 0.0})
    figures = figures_of(task, requests, found.log_likelihoods, found.is_greedy)
    accuracies = {metric: each.values for metric, each in figures.items() if metric.startswith("accuracy")}
    return [list(each) for each in np.split(found.log_likelihoods, requests.first[1:-1])], accuracies


def theirs(model: object, name: str, *, limit: int, scratch: Path) -> tuple[list[list[float]], dict[str, np.ndarray]]:
    """The same of lm-eval."""
    import lm_eval
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    rows = list(islice(archived_rows(BENCHMARKS[name]), limit))
    if name == "lambada":
        rows = [{"text": row["request"]["context"] + row["request"]["continuation"]} for row in rows]
    data = scratch / f"{name}.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    home = scratch / f"task-{name}"
    home.mkdir()
    given = Path(lm_eval.tasks.__file__).parent / TASKS[name]
    for helper in given.parent.glob("*.py"):
        (home / helper.name).write_bytes(helper.read_bytes())
    dropped = r"(?m)^(dataset_path|dataset_name|training_split|validation_split|test_split|task):.*\n"
    place = f"task: ours_{name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    validation: {data}\n"
    text = re.sub(dropped, "", given.read_text())
    (home / "task.yaml").write_text(place + "validation_split: validation\n" + text)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[f"ours_{name}"],
        task_manager=TaskManager(include_path=str(home), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"][f"ours_{name}"], key=lambda sample: sample["doc_id"])
    metrics = {"accuracy": "acc", "accuracy_per_char": "acc_norm"}
    likelihoods = [[float(answer[0][0]) for answer in sample["resps"]] for sample in samples]
    accuracies = {
        mine: np.array([float(sample[its]) for sample in samples]) for mine, its in metrics.items() if its in samples[0]
    }
    return likelihoods, accuracies


def main() -> None:
    """Print a line a task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--softmax", choices=["float32", "float64"], default="float32")
    arguments = parser.parse_args()
    from lm_eval.models.huggingface import HFLM

    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        folder = arguments.model or small_model(scratch, n_steps=arguments.steps)
        model = HFLM(
            pretrained=str(folder), dtype="float32", device="cpu", batch_size=8, softmax_dtype=arguments.softmax
        )
        host = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
        print(f"{time.strftime('%Y-%m-%d')}, {host}; models in fp32, lm-eval's softmax in {arguments.softmax}")
        print("task          items  choices  largest difference  accuracy  differs  per character  differs")
        for name in TASKS:
            mine, my_accuracies = ours(folder, name, limit=arguments.limit, scratch=scratch)
            its, its_accuracies = theirs(model, name, limit=arguments.limit, scratch=scratch)
            worst = max(abs(a - b) for x, y in zip(mine, its, strict=True) for a, b in zip(x, y, strict=True))
            cells = []
            for metric in ("accuracy", "accuracy_per_char"):
                if metric in its_accuracies:
                    differ = int((my_accuracies[metric] != its_accuracies[metric]).sum())
                    cells.append(f"{my_accuracies[metric].mean():8.3f}  {differ:7d}")
                else:
                    cells.append(f"{'':8}  {'':7}")
            n_choices = sum(map(len, mine))
            print(f"{name:<12} {len(mine):6d}  {n_choices:7d}  {worst:18.1e}  " + "       ".join(cells), flush=True)


if __name__ == "__main__":
    main()
