"""The tables of the page, but for the advice's own."""

import math
from dataclasses import replace

from raysplit.live.answers import Ending
from raysplit.quantities import format_count, format_flops, format_hyperparameter, format_seconds
from raysplit.report.budget_line import weighted
from raysplit.report.costs import Cost, Costs
from raysplit.report.story import Story
from raysplit.split import Interval
from raysplit.split.tables import AnswerTable
from raysplit.sweep.final_run import RECOMMENDED
from raysplit.tuning.tuned import Tuned


def percent_and_interval(share: Interval) -> str:
    return f"{share.mean:.2%} ({share.low:.2%} to {share.high:.2%})"


def tuning_tables(tuned: Tuned) -> list[AnswerTable]:
    """The best learning rates, the other hyperparameters, and the studies that they come from."""
    rates = [
        [
            f"{format_count(o.n_params)}, {format_count(o.pretrain_tokens)}",
            f"{o.learning_rate:.3g}", f"x/ {math.exp(o.log_error):.2f}",
            f"{tuned.rule.rate(o.n_params, o.pretrain_tokens):.3g}", f"{o.loss:.4f}", f"{o.doubling_penalty:.2%}",
            f"{o.n_tried}", f"{o.n_lost}", {"": "", "low": "at the low end", "high": "at the high end"}[o.edge],
        ]
        for o in tuned.optima
    ]  # fmt: skip
    tables = [
        AnswerTable(
            title="The best learning rate at each size and number of tokens",
            head=[
                "N, D", "best rate", "standard error", "by the rule", "loss (nats/token)", "a factor of 2 costs",
                "tried", "without a loss", "note",
            ],
            rows=rates,
            note="A run without a loss diverged, or was stopped because half of the others were better on the way.",
        )
    ]  # fmt: skip
    if tuned.chosen:
        tables.append(
            AnswerTable(
                title="The other hyperparameters",
                head=["hyperparameter", "study", "chosen", "before", "range tried", "note"],
                rows=[
                    [
                        c.name, c.study, *(format_hyperparameter(c.name, value) for value in (c.value, c.own)),
                        " to ".join(format_hyperparameter(c.name, value) for value in (c.low, c.high)),
                        f"at the {c.edge} end of its range" if c.edge else "",
                    ]
                    for c in tuned.chosen
                ],
                note="The best trial's values at the smallest size, the same for every size, as all share one grid.",
            )
        )  # fmt: skip
    studies = [
        [
            s.name, str(s.n_trials), str(s.n_pruned), str(s.n_failed), f"{s.best_loss:.4f}",
            f"{s.own_loss:.4f}" if math.isfinite(s.own_loss) else "none",
        ]
        for s in tuned.studies
    ]  # fmt: skip
    tables.append(
        AnswerTable(
            title="Studies",
            head=["study", "trials", "stopped early", "failed", "best loss", "loss of the first trial"],
            rows=studies,
            note="The first trial has the search space's own values, moved into the range where they lie outside it. "
            f"{format_flops(tuned.trained_flops)} in all. Optuna's database: {tuned.storage}.",
        )
    )
    return tables


def evaluation_tables(story: Story) -> list[AnswerTable]:
    """A table of whole variants, then all other results with a task a column; none before `raysplit eval`."""
    if story.evaluation is None:
        return []
    from raysplit.evaluate.results import tables_of

    return [table if table.head[0] == "variant" else turned(table) for table in tables_of(story.evaluation)]


def turned(table: AnswerTable) -> AnswerTable:
    """The table with rows and columns exchanged: there may be many more experts than tasks."""
    first, *others = zip(table.head, *table.rows, strict=True)
    return replace(table, head=list(first), rows=[list(row) for row in others])


def final_tables(story: Story) -> list[AnswerTable]:
    """The tables of the final run: the recommended split by domain, and every variant; none before it was trained."""
    final = story.final
    if final is None:
        return []
    tables, unit = [], story.advice.loss_unit
    in_bits = [] if unit == "bits/byte" else ["measured (bits/byte)"]
    if (recommended := final.recommended) is not None:
        rows = []
        for name, loss in recommended.losses.items():
            guess = recommended.predicted.get(name)
            rows.append([
                name, format_count(recommended.specialize_tokens[name]),
                f"{guess.mean:.4f}" if guess else "", f"{guess.low:.4f} to {guess.high:.4f}" if guess else "",
                f"{loss:.4f}", f"{loss / guess.mean - 1:+.2%}" if guess else "",
                ("yes" if guess.low <= loss <= guess.high else "no") if guess else "",
                *([f"{recommended.bits_per_byte[name]:.4f}"] if in_bits else []),
                f"{final.seed_losses[name]:.4f}" if name in final.seed_losses else "",
            ])  # fmt: skip
        tables.append(
            AnswerTable(
                title="Final run at the recommended split: predicted and measured",
                head=["domain", "specialized on", f"predicted ({unit})", f"{story.advice.level:.0%} interval",
                      f"measured ({unit})", "measured above", "inside", *in_bits, f"seed before ({unit})"],
                rows=rows,
                note=f"Seed {final.seed}, N = {format_count(final.n_params)}, "
                     f"D = {format_count(recommended.pretrain_tokens)}. “Seed before” is the un-branched model.",
            )
        )  # fmt: skip
    variants = final.variants.items()
    rows = []
    for name, variant in variants:
        mean = weighted(story, variant.losses)
        gain = ""
        if recommended is not None and name != RECOMMENDED:
            gain = f"{1 - weighted(story, recommended.losses) / mean:+.2%}"
        foretold = (*story.advice.gains, *filter(None, [story.advice.other_seeds]))
        expected = next((percent_and_interval(g.gain) for g in foretold if g.baseline == name), "")
        rows.append(
            [name, format_count(variant.pretrain_tokens), f"{variant.flops:.2e}", f"{mean:.4f}", gain,
             expected if story.final_is_comparable else ""]
        )  # fmt: skip
    tables.append(
        AnswerTable(
            title="Final run: every variant, measured at the same budget",
            head=["variant", "D", "FLOPs", f"weighted loss ({unit})", "recommended is better by", "as expected"],
            rows=rows, note=_noise_note(story),
        )
    )  # fmt: skip
    domains = list(story.problem.domains)
    tables.append(
        AnswerTable(
            title=f"Final run: measured loss of every domain, {unit}{' (bits/byte)' if in_bits else ''}",
            head=["variant", *domains],
            rows=[
                [name, *(f"{v.losses[d]:.4f}" + (f" ({v.bits_per_byte[d]:.4f})" if in_bits else "") for d in domains)]
                for name, v in variants
            ],
        )
    )
    return tables


def _noise_note(story: Story) -> str:
    noise = story.law.seed_noise
    if noise is None:
        return "One run each; no run was repeated under another seed, so the noise between seeds is not known."
    return f"One run each. Between seeds one loss varies by {noise:.2%} (one standard deviation, from repeated runs)."


def cost_table(story: Story, costs: Costs) -> AnswerTable:
    """What the sweep spent and saved."""
    history = story.history

    def row(name: str, cost: Cost) -> list[str]:
        versus = f"{cost.flops / costs.spent.flops:.2f}" if costs.spent.flops else ""
        return [name, str(cost.n_points), format_count(cost.tokens), f"{cost.flops:.2e}", versus]

    rows = [
        row("this sweep", costs.spent),
        row("the same points as independent runs", costs.independent),
        row("points that stopped trials skipped", costs.stopped),
        row("the whole grid, as a tree", costs.grid),
    ]
    rounds = f"{len(history.rounds)} round{'s' if len(history.rounds) != 1 else ''}"
    target = costs.spent.flops / story.advice.budget_flops
    time = f"{format_seconds(history.lane_seconds)} of lane time, " if history.lane_seconds else ""
    return AnswerTable(
        title="What the sweep cost, and what it saved",
        head=["", "points measured", "tokens", "FLOPs", "of the sweep's FLOPs"],
        rows=rows,
        note=f"The sweep took {time}{format_seconds(history.elapsed_seconds)} from the first record to the last, "
             f"in {rounds}, for {target:.2g} times the FLOPs of the target run. A point is one trunk or "
             "branch after a cooldown. FLOPs are reckoned from the tree of runs, in which each token is trained once.",
    )  # fmt: skip


def round_table(story: Story) -> AnswerTable:
    """The sweep's rounds, and why each was begun."""
    rows = [
        [str(r.index + 1), str(len(r.round.trials)), str(r.n_observations), r.round.why] for r in story.history.rounds
    ]
    return AnswerTable(title="Rounds", head=["round", "trials", "observations before", "why"], rows=rows,
                 note=f"End: {story.history.finish}." if story.history.finish else "")  # fmt: skip


def ending_tables(story: Story) -> list[AnswerTable]:
    """Stops and failures with their reasons; none where nothing was stopped or failed."""
    named = (
        ("Stopped trials", "after", story.history.stops),
        ("Failed trials", "heading for", story.history.failures),
    )
    return [
        AnswerTable(
            title=title, head=["trial", when, "never measured", "law's observations", "why"],
            rows=[
                [
                    _trial(e), format_count(e.milestone), ", ".join(map(format_count, e.skipped)),
                    str(e.law_observations or ""), e.why,
                ]
                for e in found
            ],
        )
        for title, when, found in named
        if found
    ]  # fmt: skip


def _trial(ending: Ending) -> str:
    trial = ending.trial
    seed = f", seed {trial.seed}" if trial.seed else ""
    where = f"{trial.domain} from D = {format_count(trial.pretrain_tokens)}" if trial.domain else "trunk"
    return f"N = {format_count(trial.n_params)}, {where}{seed}"


def choice_table(story: Story) -> AnswerTable | None:
    """How the forms of the law were chosen; None where it was not."""
    if story.choice is None:
        return None

    def share(value: float | None) -> str:
        return f"{value:.2%}" if value is not None and value == value else "unknown"

    rows = [
        [s.form, f"{story.choice.weights.get(s.form, 0.0):.0%}", share(s.regret), share(s.worst_regret), str(s.n_cases),
         share(s.held_out_error), s.note]
        for s in story.choice.scores
    ]  # fmt: skip
    return AnswerTable(
        title="Choice between forms of the law",
        head=["form", "weight", "regret, mean", "regret, worst", "held-out cases", "held-out error", "note"],
        rows=rows, note=story.choice.sentence,
    )  # fmt: skip


def corpus_table(story: Story) -> AnswerTable:
    """The corpus by domain, and its general set."""
    shares = story.space.corpus.shares
    return AnswerTable(
        title="Corpus",
        head=["domain", "share of the mixture", "training tokens", "held-out tokens", "bytes/token", "licence"],
        rows=[
            [name, f"{shares[name]:.2f}" if name in shares else "replayed", format_count(record.train.n_tokens),
             format_count(record.validation.n_tokens), f"{record.validation.bytes_per_token:.2f}",
             record.licence or "not stated"]
            for name, record in story.manifest.texts.items()
        ],
        note=f"{_whose_tokens(story)}Vocabulary of {story.manifest.tokenizer.vocab_size} tokens; identity of tokens "
             f"and tokenizer {story.manifest.identity}.",
    )  # fmt: skip


def _whose_tokens(story: Story) -> str:
    """A sentence on bases of several tokenizers, where there are such; of the others the corpus has the same text."""
    model = story.space.model
    if not any(checkpoint.counted and checkpoint.counted.tokenizer for checkpoint in model.checkpoints):
        return ""
    return (
        f"Counted in the tokens of {model.checkpoints[0].name}; bases with another tokenizer read the same text in "
        "their own. "
    )
