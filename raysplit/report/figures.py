"""The figures of a report, made from its story."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raysplit.errors import SplitError
from raysplit.live.answers import TrialState
from raysplit.pictures import curve_picture, path_picture, tree_picture
from raysplit.pictures.spec import Spec
from raysplit.report import words
from raysplit.report.budget_line import measured_variants, sweep_readings
from raysplit.report.costs import Costs
from raysplit.report.prediction_figure import prediction_picture
from raysplit.report.rate_figure import rate_picture
from raysplit.report.story import Story
from raysplit.split import LossCurve, loss_curve

_SHARES = np.linspace(0.0, 1.0, 201)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A picture with its title and caption."""

    file: str
    """Its file's name in the report folder, without a suffix."""
    title: str
    caption: str
    picture: Callable[[float], Spec]
    """Gives the picture at a width in pixels."""


def figures_of(story: Story, costs: Costs) -> list[Figure]:
    """The report's figures, in their order; from bases there is no share of pretraining, and no figures of it."""
    found = (
        []
        if story.advice.bases
        else [
            Figure(
                file="split",
                title="Loss against the share of the tokens in pretraining",
                caption=words.curve_caption(story),
                picture=lambda width: split_picture(story, width),
            ),
        ]
    )
    found += [
        Figure(file="prediction", title="Predicted and measured loss", caption=words.prediction_caption(story),
               picture=lambda width: prediction_picture(story, width)),
        Figure(file="tree", title="The tree of runs", caption=words.tree_caption(story, costs),
               picture=lambda width: runs_picture(story, width)),
    ]  # fmt: skip
    if story.history.advices and not story.advice.bases:
        found.append(Figure(file="path", title="How the recommendation moved", caption=words.path_caption(story),
                            picture=lambda width: moved_picture(story, width)))  # fmt: skip
    if (tuned := story.tuned) is not None:
        found.append(Figure(file="learning_rate", title="The learning rate", caption=words.rate_caption(tuned),
                            picture=lambda width: rate_picture(tuned, story.spec.sizes, width)))  # fmt: skip
    return found


def split_picture(story: Story, width: float) -> Spec:
    """The curves of the advised size and of the others, and every measured split."""
    advice = story.advice
    others = [size.split.n_params for size in advice.sizes if size.split.n_params != advice.split.n_params]
    return curve_picture(
        advice,
        _curve(story, advice.split.n_params),
        width=width,
        others=[curve for n_params in others if (curve := _curve(story, n_params)) is not None],
        readings=[(point.pretrain_share, point.loss) for point in sweep_readings(story)],
        variants={point.name: (point.pretrain_share, point.loss) for point in measured_variants(story)},
        seed_noise=story.law.seed_noise or 0.0,
    )


def runs_picture(story: Story, width: float) -> Spec:
    """Every trunk and branch that was tried."""
    return tree_picture(tried(story), domains=story.problem.domains, width=width)


def tried(story: Story) -> list[TrialState]:
    """Every trunk and branch that was begun; those that were only planned are left out."""
    return [trial for trial in story.history.states(frozenset()) if trial.state != "planned" or trial.losses]


def moved_picture(story: Story, width: float) -> Spec:
    """The recommendation after each round."""
    advices = story.history.advices
    return path_picture(
        advices,
        sizes=sorted(story.problem.sizes),
        regret_tolerance=story.spec.regret_tolerance,
        width=width,
        spent_flops=[advice.spent_flops for advice in advices],
    )


def _curve(story: Story, n_params: int) -> LossCurve | None:
    """The loss along the budget's line at a size; None where the budget buys nothing there."""
    try:
        return loss_curve(story.law, story.problem, n_params=n_params, shares=_SHARES, level=story.advice.level)
    except SplitError:
        return None
