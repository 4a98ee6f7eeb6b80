"""From a law to a decision: how much to pretrain, how much to specialize, and how sure that is."""

from raysplit.split.advice import Advice, BudgetAdvice, FormAdvice, Gain, Interval, SizeAdvice
from raysplit.split.answer import advise
from raysplit.split.choice import Choice, FormScore, choose_forms
from raysplit.split.curve import LossCurve, loss_curve
from raysplit.split.decision import fit_for_decision
from raysplit.split.losses import domain_losses, losses_of
from raysplit.split.partitions import PartitionAdvice, compare_partitions, render_partitions
from raysplit.split.problem import BASELINE_SHARES, Base, Problem, Split, baselines, fixed_share
from raysplit.split.regret import expected_regret
from raysplit.split.render import render_advice
from raysplit.split.search import DrawSplits, SplitsBySize, best_by_size, best_split, best_split_per_draw
from raysplit.split.sizes import with_best_size
from raysplit.split.target import target_problem

__all__ = [
    "BASELINE_SHARES",
    "Advice",
    "Base",
    "BudgetAdvice",
    "Choice",
    "DrawSplits",
    "FormAdvice",
    "FormScore",
    "Gain",
    "Interval",
    "LossCurve",
    "PartitionAdvice",
    "Problem",
    "SizeAdvice",
    "Split",
    "SplitsBySize",
    "advise",
    "baselines",
    "best_by_size",
    "best_split",
    "best_split_per_draw",
    "choose_forms",
    "compare_partitions",
    "domain_losses",
    "expected_regret",
    "fit_for_decision",
    "fixed_share",
    "loss_curve",
    "losses_of",
    "render_advice",
    "render_partitions",
    "target_problem",
    "with_best_size",
]
