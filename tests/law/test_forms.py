"""The forms: their derivatives, their limits, and a user's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.errors import LawError
from raysplit.law import FORMS, Form, Parameter, check_form, fit_form, with_repetition
from raysplit.law.form import PRETRAIN_TOKENS, SPECIALIZE_TOKENS, Array
from tests.law.tables import TRUTH, synthetic

NAMES = sorted(FORMS)
REPEATED = {
    f"{name}+repetition": with_repetition(FORMS[name], unique_pretrain_tokens=1e6, unique_specialize_tokens=2e5)
    for name in ("hoffmann", "law-8")
}
counts = st.floats(1e4, 1e12)
tokens = st.one_of(st.just(0.0), st.floats(1e4, 1e13))


class PowerOfTokens(Form):
    """The shortest form a user might write: E + B (d + s)^-b, whatever the size."""

    name = "tokens-only"
    parameters = (
        Parameter(name="E", lower=0.0, upper=np.inf, linear=True),
        Parameter(name="B", lower=1e-9, upper=1e9, log=True, linear=True),
        Parameter(name="b", lower=0.02, upper=1.5, log=True),
    )

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return theta[..., 0] + theta[..., 1] * (d + s) ** -theta[..., 2] + 0 * n

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        power = (d + s) ** -theta[..., 2] + 0 * n
        return np.stack([power**0, power, -theta[..., 1] * power * np.log(d + s)], axis=-1)

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return -theta[..., 2] * theta[..., 1] * (d + s) ** (-theta[..., 2] - 1) + 0 * n


class WrongByHalf(PowerOfTokens):
    name = "wrong"

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return 0.5 * super().slope(theta, n, d, s)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_derivatives_of_every_form_agree_with_finite_differences(name: str, seed: int) -> None:
    assert check_form(FORMS[name], seed=seed) == []


@pytest.mark.parametrize("name", NAMES)
def test_repetition_composes_with_every_form(name: str) -> None:
    assert check_form(with_repetition(FORMS[name], unique_pretrain_tokens=1e6, unique_specialize_tokens=2e5)) == []


def test_a_users_form_is_fitted_without_touching_the_package() -> None:
    form = PowerOfTokens()
    assert check_form(form) == []
    runs = synthetic("hoffmann", sizes=(1e12,), noise=0.0).assign(n_params=10)  # the size term is all but gone
    fit = fit_form(form, runs, huber_delta=np.inf)
    assert fit.parameters(form)["b"] == pytest.approx(0.3, rel=0.01)


def test_a_wrong_derivative_is_named() -> None:
    assert "slope is" in check_form(WrongByHalf())[0]


def test_a_form_that_is_not_linear_where_it_says_so_is_named() -> None:
    class Squared(PowerOfTokens):
        def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
            return super().loss(theta, n, d, s) + theta[..., 0] ** 2

        def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
            out = super().gradient(theta, n, d, s)
            out[..., 0] += 2 * theta[..., 0]
            return out

    assert any("E is declared linear" in problem for problem in check_form(Squared()))


def test_a_wrong_shape_is_named() -> None:
    class Flat(PowerOfTokens):
        def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
            return np.zeros(1)

    assert check_form(Flat()) == ["slope of theta (3, 1, P) and 64 runs has shape (1,), not (3, 64)"]


def plausible(form: Form) -> st.SearchStrategy[Array]:
    """Parameters within two prior standard deviations, for runs around N = 50k, D = 1M, D' = 200k."""
    middle = np.asarray(5e4), np.asarray(1e6), np.asarray(2e5)
    unit = {PRETRAIN_TOKENS: 1e6, SPECIALIZE_TOKENS: 2e5}

    def parameters(z: list[float]) -> Array:
        theta = np.ones(len(form.parameters))
        for j, (p, moved) in enumerate(zip(form.parameters, z, strict=True)):
            if p.prior is None:  # the floor
                theta[j] = 1.0 + 0.5 * moved
            elif not p.linear:
                value = p.prior[0] * np.exp(moved * p.prior[1]) if p.log else p.prior[0] + moved * p.prior[1]
                theta[j] = np.clip(value, p.lower, p.upper) * unit.get(p.unit, 1.0)
        for j, p in enumerate(form.parameters):
            if p.linear and p.prior is not None:  # an amplitude, whose prior is on its term's share of the loss
                share = p.prior[0] * np.exp(z[j] * p.prior[1])
                theta[j] = 2.0 * share / form.gradient(theta, *middle).ravel()[j]
        return theta

    n_parameters = len(form.parameters)
    return st.lists(st.floats(-2.0, 2.0), min_size=n_parameters, max_size=n_parameters).map(parameters)


@settings(max_examples=20)
@pytest.mark.parametrize("name", [*NAMES, *REPEATED])
@given(n=counts, d=tokens, s=tokens, factor=st.floats(1.0, 100.0), data=st.data())
def test_more_of_anything_never_hurts_where_the_form_claims_it(
    name: str, n: float, d: float, s: float, factor: float, data: st.DataObject
) -> None:
    form = {**FORMS, **REPEATED}[name]
    theta = data.draw(plausible(form))
    if d + s == 0:
        d = 1e4
    here = form.loss(theta, *map(np.asarray, (n, d, s)))
    tolerance = 1e-12 * here
    if not name.startswith("law-4"):  # where pretraining makes specialization gain less, a little more of it may cost
        assert form.loss(theta, *map(np.asarray, (n, factor * d, s))) <= here + tolerance
    if s > 0 or not name.endswith(("+cooldown", "-given")):  # whose seed was cooled down, as no branch of one token is
        assert form.loss(theta, *map(np.asarray, (n, d, max(factor * s, 1.0)))) <= here + tolerance
    exponent_of_size = [t for p, t in zip(form.parameters, theta, strict=True) if p.name == "m"]
    if not exponent_of_size or exponent_of_size[0] <= 0:  # otherwise data are worth less to larger models
        assert form.loss(theta, *map(np.asarray, (factor * n, d, s))) <= here + tolerance
    assert here >= theta[0]


@pytest.mark.parametrize("name", NAMES)
def test_everything_grows_towards_the_floor(name: str) -> None:
    theta = np.array(TRUTH[name])
    far = FORMS[name].loss(theta, *(np.asarray(1e80) for _ in range(3)))
    assert far == pytest.approx(theta[0], rel=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("-given")])
def test_without_specialization_every_form_is_hoffmanns_law_of_the_seed(name: str) -> None:
    theta, form = np.array(TRUTH[name]), FORMS[name]
    n, d = np.full(4, 36e3), np.array([1e30, 1e32, 1e34, 1e36])  # offsets are nothing here
    data = form.loss(theta, n, d, np.zeros(4)) - form.loss(theta, n, np.full(4, 1e200), np.zeros(4))
    ratios = data[1:] / data[:-1]
    assert np.ptp(ratios) < 1e-3 * ratios[0]
    assert form.limits()


def test_law_1_and_hoffmann_see_one_domain_as_the_mixture() -> None:
    n, d, s = np.asarray(1e6), np.asarray(3e7), np.asarray(5e6)
    theta = np.array(TRUTH["hoffmann"])
    assert FORMS["hoffmann"].loss(theta, n, d, s) == FORMS["hoffmann"].loss(theta, n, d + s, np.asarray(0.0))
    as_law_1 = np.append(theta, 1.0)
    assert FORMS["law-1"].loss(as_law_1, n, d, s) == pytest.approx(FORMS["hoffmann"].loss(theta, n, d, s), rel=1e-14)


def test_repeated_tokens_are_worth_what_muennighoff_found() -> None:
    form = with_repetition(FORMS["hoffmann"], unique_pretrain_tokens=1e8)
    theta = np.array([*TRUTH["hoffmann"], 15.387756])
    n, zero = np.asarray(1e7), np.asarray(0.0)

    def equivalent(tokens: float) -> float:
        """Fresh tokens that give the same loss."""
        data = form.loss(theta, n, np.asarray(tokens), zero) - theta[0] - theta[1] * 1e7 ** -theta[2]
        return float((data / theta[3]) ** (-1 / theta[4]))

    assert equivalent(0.7e8) == pytest.approx(0.7e8)
    assert equivalent(4e8) == pytest.approx(3.7e8, rel=0.02)  # four epochs count nearly in full
    assert equivalent(1e12) == pytest.approx((1 + 15.387756) * 1e8)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("+cooldown")])
def test_a_cooled_seed_is_as_good_as_a_branch_of_its_worth(name: str) -> None:
    theta, form, plain = np.array(TRUTH[name]), FORMS[name], FORMS[name.removesuffix("+cooldown")]
    n, d, s = np.asarray(36e3), np.asarray(2e6), np.asarray(1e5)
    assert form.loss(theta, n, d, 0 * s) == form.loss(theta, n, d, theta[-1] * d)
    assert form.loss(theta, n, d, s) == plain.loss(theta[:-1], n, d, s)
    assert "w D" in form.limits()["no specialization"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-given")])
def test_a_form_for_bases_is_its_own_at_one_d_and_knows_no_other(name: str) -> None:
    theta, form, whole = np.array(TRUTH[name]), FORMS[name], FORMS[name.removesuffix("-given")]
    at_one_d = {"b": 0.3, "d0": 2e5} | dict(zip((p.name for p in form.parameters), theta, strict=True))
    n, d, s = np.array([14e3, 111e3]), np.asarray(2e6), np.asarray(1e5)
    at_one_d["B"] *= (d + at_one_d["d0"]) ** at_one_d["b"]
    of_whole = np.array([at_one_d[p.name] for p in whole.parameters])
    assert form.loss(theta, n, d, s) == pytest.approx(whole.loss(of_whole, n, d, s), rel=1e-12)
    assert (form.loss(theta, n, d, s) == form.loss(theta, n, 1e6 * d, s)).all()
    read_at = theta[-1] * at_one_d["k"]
    assert form.loss(theta, n, d, 0 * s) == pytest.approx(form.loss(theta, n, d, np.asarray(read_at)), rel=1e-12)


@pytest.mark.parametrize("unique", [None, 0.0, -1.0, float("nan")])
def test_repetition_needs_unique_tokens(unique: float | None) -> None:
    with pytest.raises(LawError, match="unique_pretrain_tokens"):
        with_repetition(FORMS["law-8"], unique_pretrain_tokens=unique)
