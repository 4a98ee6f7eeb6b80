"""What do three practitioners' questions get for an answer? It writes the page benchmarks/GALLERY.md.

    python benchmarks/law/gallery.py [--out benchmarks/GALLERY.md]

Run it from the repository. The answers come from the measured surface. Every block of code on the page is run as it
stands there, in order and in one namespace, and the page shows what it prints. The page's sentences take their figures
from the results. What a sentence claims beyond its figures is checked before it is written: where other data or other
code no longer bear it out, no page is made.
"""

import argparse
import contextlib
import io
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from raysplit.quantities import format_count
from raysplit.runs import read_runs
from raysplit.split import Advice, Problem, Split, best_split, domain_losses, losses_of
from raysplit.split.advice import FLAT_TOLERANCE
from raysplit.split.measured import measured_surface

QUICKSTART = max((Path(__file__).parents[1] / "results").glob("*-quickstart"))
"""The latest run of `make demo` that is kept."""
WIDTH = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One section of the page."""

    title: str
    asked: str
    code: str
    read: Callable[[dict[str, Any]], Sequence[str]]
    """The paragraphs under the answer, from the names that all code so far has left behind."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the page there, not to standard output")
    arguments = parser.parse_args()
    names: dict[str, Any] = {}
    sections = [section(question, names) for question in QUESTIONS]
    page = "\n".join([head(names), *sections])
    if arguments.out is None:
        print(page, end="")
    else:
        arguments.out.write_text(page, encoding="utf-8")


def head(names: dict[str, Any]) -> str:
    sizes = names["runs"]["n_params"]
    paragraphs = [
        f"""Made by `.venv/bin/python benchmarks/law/gallery.py --out benchmarks/GALLERY.md`, which runs the code below
        as it stands and shows what it prints; the figures in the text are computed in the same run. The table is
        [data/surface-2026-11-23.csv](data/surface-2026-11-23.csv): {len(names["runs"])} measured losses of models of
        {format_count(sizes.min())} to {format_count(sizes.max())} parameters on {len(names["problem"].domains)}
        domains. So these are answers about tiny models on a few megabytes of text: they show how to ask and how to
        read, not what a larger model would do.""",
        """`raysplit fit benchmarks/data/surface-2026-11-23.csv --budget-flops 1.5e12` asks the first question from the
        shell; `--weight`, `--n-params` with `--seed-tokens`, and `--max-tokens` turn it into the others, but for the
        limit on the seed's loss. It reckons 6N FLOPs a token and chooses any size in between; the code below reckons
        the exact FLOPs of the four measured models, so its figures differ.""",
    ]
    return (
        "\n\n".join(["# Gallery: three questions, from a table of runs to the decision", *map(fill, paragraphs)]) + "\n"
    )


def section(question: Question, names: dict[str, Any]) -> str:
    """Run the question's code in ``names``, and write down question, code, answer and reading."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(question.code, question.title, "exec"), names)
    answer = "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
    blocks = [
        f"## {question.title}",
        fill(question.asked),
        f"```python\n{question.code.strip()}\n```",
        f"```text\n{answer}\n```",
        *map(fill, question.read(names)),
    ]
    return "\n\n".join(blocks) + "\n"


def fill(paragraph: str) -> str:
    return textwrap.fill(" ".join(paragraph.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def holds(claim: bool, sentence: str) -> str:
    """The sentence, whose words rest on the claim.

    Raises:
        SystemExit: the claim is not true of the results.
    """
    if not claim:
        raise SystemExit(
            f"the results do not bear this out, so it must be said otherwise: {' '.join(sentence.split())}"
        )
    return sentence


def percent(*shares: float) -> str:
    """(.0123,) -> 1.2 %; several are a range, with as many digits as the smallest needs."""
    digits = 0 if min(map(abs, shares)) >= 0.0995 else 1 if max(map(abs, shares)) >= 0.00995 else 2
    return " to ".join(f"{100 * share:.{digits}f}" for share in shares) + " %"


def seed_losses(names: dict[str, Any], split: Split, problem: Problem) -> np.ndarray:
    """Weighted loss of the un-branched seed in each draw, (n_draws,), nats per token."""
    bare = replace(split, specialize_tokens=dict.fromkeys(problem.domains, 0.0))
    return losses_of(names["law"], [bare], problem)[:, 0]


def excess(names: dict[str, Any], split: Split, best: Split, problem: Problem) -> tuple[float, float, float]:
    """How far a split's loss is above another's, as a share of it: mean and 90 % interval over the draws."""
    losses = losses_of(names["law"], [split, best], problem)
    found = losses[:, 0] / losses[:, 1] - 1.0
    low, high = np.quantile(found, [0.05, 0.95])
    return float(found.mean()), float(low), float(high)


BUDGET = """\
from raysplit.ladder import shape_for
from raysplit.runs import read_runs
from raysplit.split import Problem, advise, fit_for_decision, render_advice

runs = read_runs("benchmarks/data/surface-2026-11-23.csv")
shapes = {n: shape_for(n, vocab_size=512, context_length=128) for n in runs["n_params"].unique().tolist()}
problem = Problem(
    budget_flops=1.5e12,
    sizes={n: float(shape.flops_per_token) for n, shape in shapes.items()},
    domains=tuple(sorted(runs["domain"].unique())),
)
law, choice = fit_for_decision(runs, problem, step_tokens=2048)
print(choice.sentence)
advice = advise(law, problem)
print(render_advice(advice))
"""


def read_budget(names: dict[str, Any]) -> Sequence[str]:
    advice: Advice = names["advice"]
    split, tokens = advice.split, advice.split.specialize_tokens
    least, most = min(tokens, key=tokens.__getitem__), max(tokens, key=tokens.__getitem__)
    gain = {gain.baseline: gain.gain for gain in advice.gains}
    rule, half = gain["80/20"], gain["50/50"]
    decision = f"""**Train one seed of {format_count(split.n_params)} parameters on
        {format_count(split.pretrain_tokens)} tokens, then each expert on {format_count(tokens[least])} ({least}) to
        {format_count(tokens[most])} tokens ({most}).** """ + holds(
        rule.low > half.high and half.low > 0 and advice.pretrain_share.high < 0.5,
        f"""The loss is then {percent(rule.mean)} below that of 80/20 at the same size and budget
        ({percent(rule.low, rule.high)}), and {percent(half.mean)} below that of 50/50
        ({percent(half.low, half.high)}): both pretrain too long.""",
    )
    widest = max(advice.losses, key=lambda name: advice.losses[name].high / advice.losses[name].low)
    loss, noise = advice.losses[widest], advice.losses[widest].high / advice.losses[widest].low - 1
    decision += holds(
        noise > rule.high - rule.low,
        f""" A comparison is surer than a loss: one measurement of {widest} may come out anywhere from {loss.low:.2f} to
        {loss.high:.2f}.""",
    )
    other = min((size for size in advice.sizes if size.split != split), key=lambda size: size.loss.mean)
    flatness = f"""The optimum is flat: anything from {percent(*advice.flat)} of the tokens in pretraining costs at most
        {100 * FLAT_TOLERANCE:g} % more. """ + holds(
        other.split.n_params < split.n_params and other.excess.low <= 0 < other.excess.mean < FLAT_TOLERANCE,
        f"""So is the choice of size: {format_count(other.split.n_params)} costs {percent(other.excess.mean)} more
        ({percent(other.excess.low, other.excess.high)}) and is the best in {percent(other.probability)} of the draws,
        so take it where a smaller model is worth that much.""",
    )
    return [decision, flatness, against_quickstart(names, advice), about_warnings(advice)]


def against_quickstart(names: dict[str, Any], advice: Advice) -> str:
    """What another sweep of the same sources advised, and measured, at the same budget and size."""
    earlier = Advice.from_json((QUICKSTART / "advice.json").read_text())
    n_runs = len(read_runs(QUICKSTART / "observations.csv"))
    final = json.loads((QUICKSTART / "final.json").read_text())
    trained, measured = {}, {}
    for name, variant in final["variants"].items():
        tokens = {what: variant[what] for what in ("pretrain_tokens", "specialize_tokens")}
        trained[name] = Split(n_params=final["n_params"], **tokens)
        measured[name] = np.mean(list(variant["losses"].values()))
    found = measured["80/20"] / measured["recommended"] - 1
    expected, low, high = excess(names, trained["80/20"], trained["recommended"], names["problem"])
    here, there = advice.pretrain_share, earlier.pretrain_share
    alike = earlier.split.n_params == advice.split.n_params and np.isclose(earlier.budget_flops, advice.budget_flops)
    return holds(
        alike and there.low < here.mean < there.high and 0 < found < low,
        f"""How sure is that? The [quickstart](results/{QUICKSTART.name}), {n_runs} other runs on text of the same
        sources, put the best share at {percent(there.mean)} ({percent(there.low, there.high)}) for the same budget and
        size; here it is {percent(here.mean)} ({percent(here.low, here.high)}). What the quickstart then trained was
        {percent(found)} worse at 80/20 than at its own split. For these two this law, which saw none of it, expects
        {percent(expected)} ({percent(low, high)}): the intervals of comparisons are the law's alone, and know neither
        the luck of single runs, whose repeats scatter by {percent(names["law"].seed_noise)} of the loss, nor what its
        forms get wrong.""",
    )


def about_warnings(advice: Advice) -> str:
    return holds(
        all(text.startswith("chemistry: ") and text.endswith("(E = 0)") for text in advice.warnings)
        and all(factor == 1 for factor in advice.extrapolation.values()),
        """The warnings: chemistry's floor came out as zero, the least that a floor can be, so its parameters are not to
        be read one by one, nor its losses far beyond the runs. All that is advised here lies within what they span.""",
    )


SEED = """\
from dataclasses import replace

import numpy as np

from raysplit.split import Base, best_split_per_draw

weights = {"chemistry": 1, "cloud": 1, "code": 4, "drama": 2}
given = replace(
    problem,
    budget_flops=1e12,
    bases={55_536: Base(pretrain_tokens=999_424)},
    weights=[weights[name] for name in problem.domains],
)
continued = advise(law, given)
print(render_advice(continued))
per_draw = best_split_per_draw(law, given)
for name in given.domains:
    low, high = np.quantile([split.specialize_tokens[name] for split in per_draw], [0.05, 0.95])
    print(f"{name:9}  {low / 1e3:.0f}k to {high / 1e3:.0f}k tokens are best in 90% of the draws")
"""


def read_seed(names: dict[str, Any]) -> Sequence[str]:
    advice: Advice = names["continued"]
    given: Problem = names["given"]
    split, tokens, weights = advice.split, advice.split.specialize_tokens, advice.weights
    total = sum(tokens.values())
    rules = {
        "by weight": replace(split, specialize_tokens={name: total * weight for name, weight in weights.items()}),
        "equally": replace(split, specialize_tokens=dict.fromkeys(tokens, total / len(tokens))),
    }
    expected = {name: excess(names, rule, split, given) for name, rule in rules.items()}
    grids = measured_surface(names["runs"], given.domains)[split.n_params][int(split.pretrain_tokens)]

    def measured(one: Split) -> float:
        losses = [grid.loss(one.specialize_tokens[name]) for name, grid in zip(given.domains, grids, strict=True)]
        return float(np.dot(losses, given.weights))

    found = {name: measured(rule) / measured(split) - 1 for name, rule in rules.items()}
    more_first = sorted(tokens, key=tokens.__getitem__, reverse=True)
    equal, doubled = (
        domain_losses(names["law"], [replace(split, specialize_tokens=dict.fromkeys(tokens, s))], given)[:, 0].mean(
            axis=0
        )
        for s in (tokens["chemistry"], 2 * tokens["chemistry"])
    )
    falls = dict(zip(given.domains, equal - doubled, strict=True))
    widths = [
        np.ptp(np.quantile([draw.specialize_tokens[name] for draw in names["per_draw"]], [0.05, 0.95])) / tokens[name]
        for name in given.domains
    ]
    listed = ", ".join(f"{format_count(tokens[name])} tokens of {name}" for name in more_first)
    by_weight, equally, seed_noise = expected["by weight"], expected["equally"], names["law"].seed_noise
    return [
        f"**Continue the seed on {listed}.** "
        + holds(
            all(weights[more] >= weights[less] for more, less in pairwise(more_first))
            and weights["cloud"] == weights["chemistry"]
            and tokens["cloud"] > 1.2 * tokens["chemistry"]
            and falls["cloud"] > falls["chemistry"],
            f"""What counts more gets more, but weights are not all: cloud and chemistry count alike, and cloud gets
            {tokens["cloud"] / tokens["chemistry"]:.1f} times as much, because a second
            {format_count(tokens["chemistry"])} tokens would take {falls["cloud"]:.2f} nats off its loss and
            {falls["chemistry"]:.2f} off chemistry's.""",
        ),
        holds(
            0 < by_weight[1] < by_weight[2] < FLAT_TOLERANCE < equally[1]
            and found["equally"] > max(found["by weight"], 0)
            and found["by weight"] < seed_noise,
            f"""How much does it matter? The same tokens shared out by weight cost {percent(by_weight[0])} of the
            weighted loss ({percent(*by_weight[1:])}), shared out equally {percent(equally[0])}
            ({percent(*equally[1:])}). The runs measured at this very seed say {percent(found["by weight"])} and
            {percent(found["equally"])}, interpolated between their D'; with repeats of one run scattering by
            {percent(seed_noise)}, the first of these is nothing to go by. So the weights are what counts, and the rest
            is fine tuning: the draws leave each domain's best tokens open by {percent(min(widths), max(widths))} of
            themselves.""",
        ),
        """A fixed seed has no share to choose, so the lines about it have no width, and no rule of thumb to compare
        with. It must be a checkpoint whose learning rate has not been cooled down, as the table's branches start from:
        the law knows nothing of any other kind.""",
    ]


SCARCE = """\
from raysplit.errors import SplitError

scarce = replace(problem, max_specialize_tokens={"drama": 150_000}, max_general_loss=2.8)
held = advise(law, scarce)
print(render_advice(held))

try:
    advise(law, replace(scarce, max_general_loss=2.5))
except SplitError as error:
    print("no more than 2.5:", error)
"""


def read_scarce(names: dict[str, Any]) -> Sequence[str]:
    advice: Advice = names["held"]
    scarce: Problem = names["scarce"]
    free, split, limit = names["advice"].split, advice.split, scarce.max_general_loss
    capped = best_split(names["law"], replace(scarce, max_general_loss=np.inf))
    by_cap, by_limit = excess(names, capped, free, scarce), excess(names, split, capped, scarce)
    general, cap = seed_losses(names, split, scarce), scarce.max_specialize_tokens["drama"]
    above = float((general > limit).mean())
    half = min(advice.budgets, key=lambda other: other.budget_flops)
    return [
        f"""**Pretrain on {format_count(split.pretrain_tokens)} tokens, {percent(advice.pretrain_share.mean)} of them,
        and use all {format_count(cap)} of drama.** """
        + holds(
            free.n_params == split.n_params == capped.n_params
            and np.isclose(split.specialize_tokens["drama"], cap)
            and free.pretrain_tokens < capped.pretrain_tokens < split.pretrain_tokens
            and all(
                tokens > free.specialize_tokens[n] for n, tokens in capped.specialize_tokens.items() if n != "drama"
            ),
            f"""The first answer pretrains on {format_count(free.pretrain_tokens)}. The lack of drama alone moves that
            to {format_count(capped.pretrain_tokens)} and costs {percent(by_cap[0])} of the loss: what drama cannot use
            goes to the seed and the other experts. The limit on the seed, which would otherwise stand at
            {seed_losses(names, capped, scarce).mean():.2f}, does the rest for another {percent(by_limit[0])}.""",
        ),
        holds(
            0.25 < above < 0.75
            and half.budget_flops < advice.budget_flops
            and half.pretrain_share > advice.pretrain_share.high,
            f"""The limit is kept by the mean of the draws with nothing to spare: in {percent(above)} of them the seed
            ends above {limit:g}. Ask for {limit + general.mean() - np.quantile(general, 0.95):.3f} to be 95 % sure as
            far as the law goes, and for less again where a single measurement must come out below. The limit
            weighs more the less there is to spend: at half the budget the seed gets {percent(half.pretrain_share)} of
            the tokens. One that no split keeps is refused by name, with the lowest loss in reach.""",
        ),
        """`max_specialize_tokens` is a hard stop for the expert. Where it may go round its text again, a `Repetition`
        given to `fit_for_decision` counts repeated tokens for less instead; `available_tokens` with `mixture` also
        counts what the seed saw of the domain.""",
    ]


QUESTIONS = (
    Question(
        title="1. How big a model, how long a seed, how long each expert?",
        asked="""I have 1.5e12 FLOPs for one seed and four experts. How do I spend them, what do I lose by 80/20, and
        how exact must I be?""",
        code=BUDGET,
        read=read_budget,
    ),
    Question(
        title="2. How long should I specialize a seed that I already have?",
        asked="""I have a checkpoint of 55,536 parameters after 999,424 tokens, and 1e12 FLOPs more. Code counts four
        times as much as chemistry or cloud, drama twice. How long should each domain be trained on?""",
        code=SEED,
        read=read_seed,
    ),
    Question(
        title="3. What if a domain has little text, and the seed must stay good?",
        asked="""As the first question, but there are only 150,000 tokens of drama, and the seed itself, which is to be
        used too, may not have a mean loss above 2.8 nats per token over the four domains.""",
        code=SCARCE,
        read=read_scarce,
    ),
)


if __name__ == "__main__":
    main()
