"""Hypothesis strategies for problems about a known law."""

from hypothesis import strategies as st

from raysplit.law import Law
from raysplit.split import Problem
from tests.split.doubles import known_law

SIZES = {14_000: 6 * 18_000.0, 36_000: 6 * 42_000.0, 110_000: 6 * 120_000.0}

laws = st.builds(
    known_law,
    n_domains=st.integers(1, 5),
    n_draws=st.sampled_from([1, 1, 3]),
    seed=st.integers(0, 10_000),
    spread=st.floats(0.0, 0.5),
)


@st.composite
def problems(draw: st.DrawFn, *, law: Law, capped: bool = True) -> Problem:
    """Budgets from 1 M to 100 M tokens of the middle size; caps that bind now and then."""
    caps: dict[str, float] = {}
    available: dict[str, float] = {}
    if capped:
        some = st.lists(st.sampled_from(law.domains), unique=True)
        caps = {name: draw(st.floats(0, 3e6)) for name in draw(some)}
        available = {name: draw(st.floats(1e5, 1e8)) for name in draw(some)}
    return Problem(
        budget_flops=6 * 42_000 * draw(st.floats(1e6, 1e8)),
        sizes=SIZES,
        domains=law.domains,
        weights=draw(st.lists(st.floats(0.1, 5), min_size=len(law.domains), max_size=len(law.domains))),
        accounting=draw(st.sampled_from(["shared", "per-expert"])),
        seeds=draw(st.sampled_from(["shared", "shared", "independent"])),
        max_pretrain_tokens=draw(st.sampled_from([float("inf"), 5e6])) if capped else float("inf"),
        max_specialize_tokens=caps,
        available_tokens=available,
        mixture=dict.fromkeys(law.domains, 1 / len(law.domains)),
        inference_tokens=draw(st.sampled_from([0.0, 1e5])),
    )
