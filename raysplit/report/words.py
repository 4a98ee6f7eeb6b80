"""The page's sentences: the answer, the captions of figures, and the warnings."""

import math
from collections.abc import Sequence

import numpy as np

from raysplit.design.hyperparameters import PRIOR_ERROR
from raysplit.quantities import counted, format_count, format_flops
from raysplit.report.budget_line import measured_variants, sweep_readings, weighted
from raysplit.report.costs import Costs
from raysplit.report.prediction_figure import in_sample
from raysplit.report.story import Story
from raysplit.split.advice import ALL, FLAT_TOLERANCE, SHARE, Advice
from raysplit.split.tables import advice_title
from raysplit.sweep.final_run import RECOMMENDED
from raysplit.tuning.tuned import Tuned


def answer(advice: Advice) -> str:
    """The recommendation in one sentence; what the runs do not tell is left out."""
    if ALL in advice.withheld:
        return advice_title(advice)
    split, share = advice.split, advice.pretrain_share
    interval = f"{advice.level:.0%} interval {share.low:.0%} to {share.high:.0%}"
    told_share = (
        "share not told by the runs" if SHARE in advice.withheld else f"{share.mean:.0%} of the tokens; {interval}"
    )
    experts = _listed([f"{format_count(tokens)} of {name}" for name, tokens in split.specialize_tokens.items()])
    accounting = "" if advice.accounting == "shared" else " for each expert alone"
    if advice.seeds == "independent":
        accounting += ", each expert with a seed of its own"
    gains = _listed(
        [f"{g.gain.mean:.1%} below {g.baseline} ({g.gain.low:.1%} to {g.gain.high:.1%})" for g in advice.gains]
    )
    if advice.bases:
        base = advice.bases[split.n_params]
        return (
            f"With {format_flops(advice.budget_flops)}{accounting}, go on from {base} with D' = {experts} tokens: the "
            f"expected weighted loss is {advice.loss.mean:.3f} {advice.loss_unit} ({advice.loss.low:.3f} to "
            f"{advice.loss.high:.3f})" + (f", {gains}." if gains else ".")
        )
    return (
        f"With {format_flops(advice.budget_flops)}{accounting}, pretrain N = {format_count(split.n_params)} parameters "
        f"on D = {format_count(split.pretrain_tokens)} tokens of the mixture ({told_share}) "
        f"and specialize on D' = {experts} tokens: the expected weighted loss is "
        f"{advice.loss.mean:.3f} {advice.loss_unit} ({advice.loss.low:.3f} to {advice.loss.high:.3f})"
        + (f", {gains}." if gains else ".")
    )  # fmt: skip


def outcome(story: Story) -> str:
    """What the final run measured, in one sentence; empty before it was trained."""
    final = story.final
    if final is None or (own := final.recommended) is None:
        return ""
    loss = weighted(story, own.losses)
    told = {name: guess for name, guess in own.predicted.items() if name in own.losses}
    inside = sum(guess.low <= own.losses[name] <= guess.high for name, guess in told.items())
    gains = _listed(
        [
            f"{_apart(1 - loss / weighted(story, v.losses))} {name}"
            for name, v in final.variants.items()
            if name != RECOMMENDED
        ]
    )
    covered = f", with {inside} of {counted(len(told), 'domain')} inside their predicted interval" if told else ""
    return f"Measured at that split: {loss:.3f} {story.advice.loss_unit}{covered}" + (f"; {gains}." if gains else ".")


def warnings_of(story: Story) -> list[str]:
    """The advice's warnings, and those of an unfinished sweep, failed trials and the final run."""
    found = list(story.advice.warnings)
    final, history = story.final, story.history
    if not history.finish:
        found.append("the sweep has not finished; this is the answer so far")
    if history.failures:
        found.append(f"{_count(len(history.failures), 'trial')} failed; see the table of failed trials")
    if final is None:
        found.append("no final run was trained, so nothing here was checked out of sample (`raysplit train` does that)")
    elif not story.final_is_comparable:
        found.append("the final run was made at another size or budget than this advice; it is left out of figure 1")
    return found


def curve_caption(story: Story) -> str:
    advice = story.advice
    low, high = advice.flat
    text = (
        f"Weighted loss along the line of splits that cost {format_flops(advice.budget_flops)}; at each share the "
        f"domains' tokens are the best ones. Look for how flat the bottom is: every split with {low:.0%} to {high:.0%} "
        f"of the tokens in pretraining is within {FLAT_TOLERANCE:.1%} of the best, and the band is the law's "
        f"{advice.level:.0%} interval."
    )  # fmt: skip
    if readings := sweep_readings(story):
        text += f" Open circles ({len(readings)}) are the sweep's own runs, each domain's loss interpolated in D'."
    if measured_variants(story):
        text += " Filled marks were trained and measured at exactly this budget, after the prediction"
        noise = story.law.seed_noise
        text += (
            f"; their bars are one standard deviation between seeds ({noise:.2%}), taken as common to all domains."
            if noise else "."
        )  # fmt: skip
        text += " The baselines divide their domain tokens by weight, so they may lie above the curve."
    return text + " An arrow marks a loss above the frame."


def prediction_caption(story: Story) -> str:
    known = in_sample(story)
    text = (
        f"Small dots: the {counted(len(known.measured), 'observation')} that the law was fitted to; their mean "
        f"error is {np.abs(known.error).mean():.2%}, and {known.covered:.0%} lie inside the {story.advice.level:.0%} "
        "interval (in sample, so this flatters)."
    )
    if story.final is not None and any(v.predicted for v in story.final.variants.values()):
        pairs = [(v.losses[d], g) for v in story.final.variants.values() for d, g in v.predicted.items()]
        inside = sum(g.low <= loss <= g.high for loss, g in pairs)
        error = float(np.mean([abs(loss / g.mean - 1) for loss, g in pairs]))
        text += (
            f" Outlined marks: the final run, predicted before it was trained; mean error {error:.2%}, {inside} of "
            f"{len(pairs)} inside the interval. On the right the bars are those intervals: a mark outside its bar is a "
            "surprise."
        )
    else:
        text += " There is no final run yet, so nothing here is out of sample."
    return text


def tree_caption(story: Story, costs: Costs) -> str:
    history = story.history
    trunks = sum(not c.domain for c in history.chains)
    sharing = costs.independent.flops / costs.spent.flops if costs.spent.flops else 1.0
    branches = _count(len(history.chains) - trunks, "branch")
    rises = ", ".join(map(format_count, story.spec.specialize_grid))
    text = (
        f"{_count(trunks, 'trunk')} and {branches}: a trunk runs from left to right, and a branch rises by a mark for "
        f"each D' ({rises}). A filled mark is a measurement after its cooldown. Each token was "
        f"trained once: as independent runs the same points would have cost {sharing:.1f} times as much."
    )
    if history.stops:
        saved = costs.stopped.flops / costs.spent.flops
        text += (
            f" Stopped early, because the rest could not change the decision for its price (crosses): "
            f"{_count(len(history.stops), 'trial')}, which saved {saved:.0%} of what the sweep spent."
        )
    if history.failures:
        text += f" Failed (red crosses): {_count(len(history.failures), 'trial')}."
    return text


def path_caption(story: Story) -> str:
    past = story.history.advices
    if len(past) == 1:
        return (
            f"One recommendation, after {counted(past[0].n_observations, 'observation')}: the sweep ended before a "
            "second round, so there is no movement to see. Below, what better knowledge was expected to save."
        )
    first, last = past[0].pretrain_share, past[-1].pretrain_share
    return (
        f"The recommendation after each round (small numbers: observations). The share D/T went from {first.mean:.0%} "
        f"({first.low:.0%} to {first.high:.0%}) to {last.mean:.0%} ({last.low:.0%} to {last.high:.0%}); a curve that "
        "settles while its interval narrows says that more runs would change little. Below, what better knowledge was "
        "expected to save."
    )


def tuning(tuned: Tuned) -> str:
    """The rule of the learning rate, its errors, and how it is used, in a few sentences."""
    rule, optima = tuned.rule, tuned.optima
    penalty = sum(optimum.doubling_penalty for optimum in optima) / len(optima)
    smallest, largest = min(o.n_params for o in optima), max(o.n_params for o in optima)
    text = (
        f"The learning rate was tuned at N = {format_count(smallest)}"
        + (f" to {format_count(largest)}" if largest > smallest else "")
        + f" and carried to every size by lr = {rule.reference:.3g} (N / {format_count(rule.reference_params)})"
        f"^{rule.exponent:.2f} (D / {format_count(rule.reference_tokens)})^{rule.token_exponent:.2f}; the exponents "
        f"are known to within {rule.exponent_error:.2f} and {rule.token_exponent_error:.2f} (one standard error; "
        f"beforehand they were taken to be {tuned.prior_exponent:.2f} and 0, each to within {PRIOR_ERROR:.2f}). A "
        f"trunk runs at one rate and serves every D on its way, so all take the rate of the largest, "
        f"{format_count(tuned.horizon_tokens)}. A rate off by a factor of two costs {penalty:.1%} of the loss, by the "
        "parabolas. The sweep trained with what was found: the law is fitted to tuned runs only."
    )
    if rule.left_out:
        errors = _listed([f"{math.exp(left.log_error):.2f} at {format_count(left.n_params)}" for left in rule.left_out])
        worst = max(left.penalty for left in rule.left_out)
        text += f" Fitted without a size, the rule misses its best rates by a factor of {errors}: at most {worst:.1%}."
    if edges := [o for o in optima if o.edge]:
        where = _listed([f"N = {format_count(o.n_params)}, D = {format_count(o.pretrain_tokens)}" for o in edges])
        text += f" At {where} the best rate lies at the end of what was tried: it is a bound."
    return text


def rate_caption(tuned: Tuned) -> str:
    """The caption of the figure of the learning rate."""
    lost = sum(optimum.n_lost for optimum in tuned.optima)
    return (
        f"Left: {len(tuned.tried) - lost} losses of small trunks under one seed, each above the lowest of its size and "
        "tokens, with the parabola that gives its best rate (tick); arrows lie above the frame. Right: the best rates "
        "with their standard errors (open where they are bounds), and the rule that every trunk of the sweep goes by "
        "(bars: its sizes; band: one standard error)."
    )  # fmt: skip


def _count(n: int, what: str) -> str:
    plural = what + ("es" if what.endswith("ch") else "s")
    return f"{n} {what if n == 1 else plural}"


def _apart(gain: float) -> str:
    return f"{abs(gain):.1%} {'below' if gain >= 0 else 'above'}"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else "".join(parts)
