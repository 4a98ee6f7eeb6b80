"""The advice as a table for a person."""

from collections import Counter

from raysplit.law import Calibration
from raysplit.quantities import format_count, format_flops
from raysplit.split.advice import FLAT_TOLERANCE, Advice, Interval


def render_advice(advice: Advice) -> str:
    """Plain text, at most 100 columns wide unless a name is long."""
    split = advice.split
    accounting = "one seed and all experts" if advice.accounting == "shared" else "each expert alone"
    share = advice.pretrain_share
    lines = [
        f"Best split of {format_flops(advice.budget_flops)} ({accounting})",
        f"  model size     {format_count(split.n_params)} non-embedding parameters"
        f" (best in {advice.probability:.0%} of {advice.n_draws} draws of the law)",
        f"  pretrain       {format_count(split.pretrain_tokens)} tokens of the mixture: {share.mean:.0%} of the tokens"
        f" ({advice.level:.0%} interval {share.low:.0%} to {share.high:.0%})",
        f"  as good        {advice.flat[0]:.0%} to {advice.flat[1]:.0%} of the tokens in pretraining cost at most"
        f" {FLAT_TOLERANCE:.1%} more loss",
        f"  regret         {advice.expected_regret:.2%} of the loss expected",
        *_calibration(advice.calibration),
        "",
        *_table(
            ["domain", "weight", "specialize on", "loss", f"{advice.level:.0%} interval"],
            [
                [name, f"{advice.weights[name]:.2f}", format_count(split.specialize_tokens[name]), *_loss(loss)]
                for name, loss in advice.losses.items()
            ]
            + [["weighted", "", "", *_loss(advice.loss)]],
        ),
    ]
    if advice.gains:
        rows = [[gain.baseline, f"{gain.loss.mean:.4f}", *_percent(gain.gain)] for gain in advice.gains]
        lines += ["", *_table(["against", "loss", "gain", "interval"], rows)]
    if len(advice.sizes) > 1:
        rows = [
            [
                format_count(size.split.n_params),
                format_count(size.split.pretrain_tokens),
                f"{size.loss.mean:.4f}",
                *_percent(size.excess),
                f"{size.probability:.0%}",
            ]
            for size in advice.sizes
        ]
        lines += ["", *_table(["model size", "pretrain", "loss", "worse by", "interval", "best in"], rows)]
    if advice.budgets:
        rows = [
            [
                format_flops(other.budget_flops),
                format_count(other.split.n_params),
                format_count(other.split.pretrain_tokens),
                f"{other.pretrain_share:.0%}",
            ]
            for other in advice.budgets
        ]
        lines += ["", *_table(["at a budget of", "model size", "pretrain", "share"], rows)]
    if advice.forms:
        rows = [
            [
                name,
                f"{form.weight:.0%}",
                ", ".join(f"{count} {status}" for status, count in Counter(form.fits.values()).items()),
            ]
            for name, form in advice.forms.items()
        ]
        lines += ["", *_table(["form", "weight", "fits"], rows)]
    lines += [f"\nwarning: {warning}" for warning in advice.warnings]
    return "\n".join(lines) + "\n"


def _calibration(found: Calibration | None) -> list[str]:
    if found is None:
        return []
    widened = f"; the forms' misfit is taken {found.stretch:.1f} times as large for it" if found.stretch >= 1.05 else ""
    return [
        f"  calibration    {found.coverage:.0%} of {found.n_losses} held-out losses of larger runs lay in their"
        f" {found.level:.0%} interval{widened}"
    ]


def _loss(loss: Interval) -> list[str]:
    return [f"{loss.mean:.4f}", f"{loss.low:.4f} to {loss.high:.4f}"]


def _percent(share: Interval) -> list[str]:
    return [f"{share.mean:.2%}", f"{share.low:.2%} to {share.high:.2%}"]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  "
        + "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in [header, *rows]
    ]
