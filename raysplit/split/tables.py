"""The advice as rows of words, the same for the terminal, the report and the live page."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysplit.quantities import format_count, format_flops
from raysplit.runs import UNTOLD_TOKENS, LossUnit
from raysplit.split.advice import ALL, FLAT_TOLERANCE, MODEL_SIZE, SHARE, Advice, Interval
from raysplit.split.problem import Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One line of the answer."""

    label: str
    value: str
    note: str
    interval: str = ""
    """At the advice's level; empty where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTable:
    """Headings and rows of text, no markup."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    """The first cell of a row is its heading."""
    note: str = ""
    is_prose: bool = False
    """Whether its cells are sentences, which are aligned to the left."""


def advice_title(advice: Advice) -> str:
    """What the advice answers."""
    if ALL in advice.withheld:
        return "No split is told by these runs."
    if advice.bases:
        paid = "all experts" if advice.accounting == "shared" else "each expert alone"
        return f"Best use of {format_flops(advice.budget_flops)} on a base that exists ({paid})"
    return f"Best split of {format_flops(advice.budget_flops)} ({paid_for(advice)})"


def paid_for(advice: Advice) -> str:
    """What the budget pays for."""
    if advice.accounting != "shared":
        return "each expert alone"
    return "one seed and all experts" if advice.seeds == "shared" else "all experts, each with a seed of its own"


def advice_facts(advice: Advice) -> list[Fact]:
    """The split and how sure it is; nothing of what the runs do not tell."""
    if ALL in advice.withheld:
        return []
    facts = [Fact(label="priced by", value=advice.price, note="")] if advice.price else []
    facts += _of_base(advice) if advice.bases else _of_seed(advice)
    facts += [
        Fact(
            label="compute-opt.", value=f"{symbol} as C^{power.mean:.3f}", note="with the budget C",
            interval=f"{power.low:.3f} to {power.high:.3f}",
        )
        for symbol, power in zip(("N", "D"), advice.exponents.values(), strict=False)
    ]  # fmt: skip
    facts.append(Fact(label="regret", value=f"{advice.expected_regret:.2%}", note="of the loss expected"))
    if (found := advice.calibration) is not None:
        stretch = (
            f"; the forms' misfit is taken {found.stretch:.1f} times as large for it" if found.stretch >= 1.05 else ""
        )
        within = f"of {found.n_losses} held-out losses of larger runs lay in their {found.level:.0%} interval"
        facts.append(Fact(label="calibration", value=f"{found.coverage:.0%}", note=within + stretch))
    return facts


def _of_seed(advice: Advice) -> list[Fact]:
    """The seed that is to be pretrained."""
    split, share = advice.split, advice.pretrain_share
    facts = [
        Fact(
            label="model size", value=format_count(split.n_params),
            note="non-embedding parameters" + ("" if MODEL_SIZE in advice.withheld else _best_in(advice)),
        ),
        Fact(
            label="pretrain", value=format_count(split.pretrain_tokens),
            note="tokens of the mixture" + ("" if advice.seeds == "shared" else ", each expert by itself"),
        ),
    ]  # fmt: skip
    if SHARE not in advice.withheld:
        facts += [
            Fact(
                label="share", value=f"{share.mean:.0%}", note="of the tokens in pretraining",
                interval=f"{share.low:.0%} to {share.high:.0%}",
            ),
            Fact(
                label="as good", value=f"{advice.flat[0]:.0%} to {advice.flat[1]:.0%}",
                note=f"of the tokens in pretraining cost at most {FLAT_TOLERANCE:.1%} more loss",
            ),
        ]  # fmt: skip
    return facts


def _of_base(advice: Advice) -> list[Fact]:
    """The base that the experts start from."""
    n_params, tokens = advice.split.n_params, advice.split.pretrain_tokens
    best = _best_in(advice) if len(advice.bases) > 1 else ""
    facts = [
        Fact(label="start from", value=advice.bases[n_params], note=f"a base that exists{best}"),
        Fact(label="model size", value=format_count(n_params), note="non-embedding parameters"),
    ]
    if tokens != UNTOLD_TOKENS:
        facts.append(Fact(label="pretrain", value=format_count(tokens), note="tokens that it has seen, at no cost"))
    if advice.replay_share or advice.general_rise:
        facts.append(Fact(label="replay", value=f"{advice.replay_share:.0%}", note="general text among the tokens"))
    if advice.loss_unit != "nats/token":
        note = "of the same held-out text; tokens are each base's own"
        facts.append(Fact(label="losses in", value=spelled(advice.loss_unit), note=note))
    return facts


def _best_in(advice: Advice) -> str:
    return f" (best in {advice.probability:.0%} of {advice.n_draws} draws of the law)"


def advice_tables(advice: Advice, *, bytes_per_token: Mapping[str, float] | None = None) -> list[AnswerTable]:
    """The split by domain, what it gains, other sizes and budgets, and the forms of the law; those that have rows.

    Args:
        advice: whose tables.
        bytes_per_token: of each domain's held-out text, for a column of bits per byte; without it there is no such
            column.
    """
    if ALL in advice.withheld:
        return [_withheld(advice)]
    interval = f"{advice.level:.0%} interval"
    tables = [
        _domains(advice, interval, bytes_per_token),
        AnswerTable(
            title="Expected gain over rules of thumb at the same size and budget",
            head=["against", "loss", "gain", "interval"],
            rows=[
                [gain.baseline, f"{gain.loss.mean:.4f}", *_percent(gain.gain)]
                for gain in (*advice.gains, *filter(None, [advice.other_seeds]))
            ],
            note=f"Loss in {spelled(advice.loss_unit)}; a gain's {interval} is for trained models, the luck of both "
                 "included.",
        ),
        AnswerTable(
            title="What each expert loses on general text",
            head=["expert of", "rise", "interval"],
            rows=[[name, *_percent(rise)] for name, rise in advice.general_rise.items()],
            note="Of the general loss over the base's, as a share of it.",
        ),
        _replayed(advice),
        _sizes(advice),
        AnswerTable(
            title="The advice at other budgets",
            head=["at a budget of", *_head_of_split(advice), *([] if advice.bases else ["share"])],
            rows=[
                [
                    format_flops(other.budget_flops), *_cells_of_split(advice, other.split),
                    *([] if advice.bases else [f"{other.pretrain_share:.0%}"]),
                ]
                for other in advice.budgets
            ],
        ),
        AnswerTable(
            title="The forms of the law behind it",
            head=["form", "weight", "fits"],
            rows=[
                [name, f"{form.weight:.0%}", ", ".join(f"{n} {how}" for how, n in Counter(form.fits.values()).items())]
                for name, form in advice.forms.items()
            ],
        ),
        _withheld(advice),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def _replayed(advice: Advice) -> AnswerTable:
    return AnswerTable(
        title="The best use of each base at each share replayed",
        head=["base", "replayed", "specialize", "loss", "general loss rises by at most", "interval"],
        rows=[
            [
                advice.bases[one.split.n_params], f"{one.replay_share:.0%}",
                format_count(sum(one.split.specialize_tokens.values())), f"{one.loss:.4f}",
                *(["", ""] if one.worst_rise is None else _percent(one.worst_rise)),
            ]
            for one in advice.replayed
        ],
        note="Each within the limits that were given; the rise is of the expert that loses most.",
    )  # fmt: skip


def _sizes(advice: Advice) -> AnswerTable:
    sizes, is_told = advice.sizes if len(advice.sizes) > 1 else (), MODEL_SIZE not in advice.withheld
    return AnswerTable(
        title="The best use of each base" if advice.bases else "The best split at each size",
        head=[*_head_of_split(advice), *(["loss", "worse by", "interval", "best in"] if is_told else [])],
        rows=[
            [
                *_cells_of_split(advice, size.split),
                *([f"{size.loss.mean:.4f}", *_percent(size.excess), f"{size.probability:.0%}"] if is_told else []),
            ]
            for size in sizes
        ],
        note="“Best in” is the share of the law's draws in which a size is the best." if is_told else "",
    )  # fmt: skip


def _head_of_split(advice: Advice) -> list[str]:
    return ["base", "specialize"] if advice.bases else ["model size", "pretrain"]


def _cells_of_split(advice: Advice, split: Split) -> list[str]:
    if advice.bases:
        return [advice.bases[split.n_params], format_count(sum(split.specialize_tokens.values()))]
    return [format_count(split.n_params), format_count(split.pretrain_tokens)]


def _withheld(advice: Advice) -> AnswerTable:
    return AnswerTable(
        title="Not told by these runs",
        head=["Not told by these runs", ""],
        is_prose=True,
        rows=[[*why] for why in advice.withheld.items()],
    )


def _domains(advice: Advice, interval: str, bytes_per_token: Mapping[str, float] | None) -> AnswerTable:
    if advice.loss_unit == "bits/byte":  # which the losses are in already
        bytes_per_token = None

    def bits(domain: str, loss: float) -> list[str]:
        return [] if bytes_per_token is None else [f"{loss / math.log(2) / bytes_per_token[domain]:.4f}"]

    rows = [
        [
            name, f"{advice.weights[name]:.2f}", format_count(advice.split.specialize_tokens[name]), *_loss(loss),
            *bits(name, loss.mean),
        ]
        for name, loss in advice.losses.items()
    ]  # fmt: skip
    head = ["domain", "weight", "specialize on", "loss", interval]
    empty = [] if bytes_per_token is None else [""]
    return AnswerTable(
        title="The advised split, by domain",
        head=head if bytes_per_token is None else [*head, "bits/byte"],
        rows=[*rows, ["weighted", "", "", *_loss(advice.loss), *empty]],
        note=f"Tokens of each domain, loss in {spelled(advice.loss_unit)}. Intervals are for trained models, their "
             "luck included.",
    )  # fmt: skip


def spelled(unit: LossUnit) -> str:
    """The unit of a loss in words."""
    return unit.replace("/", " per ")


def _loss(loss: Interval) -> list[str]:
    return [f"{loss.mean:.4f}", f"{loss.low:.4f} to {loss.high:.4f}"]


def _percent(share: Interval) -> list[str]:
    return [f"{share.mean:.2%}", f"{share.low:.2%} to {share.high:.2%}"]
