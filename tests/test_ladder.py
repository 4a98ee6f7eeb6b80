"""The model ladder: its arithmetic holds, and it is the arithmetic of the models that torch builds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.ladder import ModelShape, shape_for

requests = st.floats(math.log(8_000), math.log(2e10)).map(lambda log_n: round(math.exp(log_n)))


def shape(n_params: int, *, vocab_size: int = 512, context_length: int = 128) -> ModelShape:
    return shape_for(n_params, vocab_size=vocab_size, context_length=context_length)


@given(requests)
def test_a_request_is_met_as_closely_as_documented(n_params: int) -> None:
    error = abs(shape(n_params).n_params_non_embedding / n_params - 1)
    assert error <= (0.15 if n_params >= 1_000_000 else 0.25 if n_params >= 30_000 else 0.70)


@given(requests, requests)
def test_a_larger_request_is_never_a_smaller_model(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert shape(small).n_params_non_embedding <= shape(large).n_params_non_embedding


@given(requests)
def test_a_shapes_own_count_gives_that_shape_again(n_params: int) -> None:
    met = shape(n_params)
    assert shape(met.n_params_non_embedding) == met


@given(requests)
def test_heads_divide_the_width(n_params: int) -> None:
    met = shape(n_params)
    assert met.hidden_size % met.n_heads == 0
    assert (met.hidden_size // met.n_heads) % 2 == 0, "rotary positions turn pairs of channels"


@given(requests, st.integers(300, 200_000), st.integers(16, 8192))
def test_vocabulary_and_context_leave_the_body_alone(n_params: int, vocab_size: int, context_length: int) -> None:
    met, plain = shape(n_params, vocab_size=vocab_size, context_length=context_length), shape(n_params)
    assert met.n_params_non_embedding == plain.n_params_non_embedding
    assert met.n_params_total - met.n_params_non_embedding == vocab_size * met.hidden_size


def test_six_n_is_the_limit_of_wide_models_with_short_contexts() -> None:
    wide = shape(20_000_000_000, vocab_size=300, context_length=16)
    assert wide.flops_per_token == pytest.approx(wide.flops_per_token_6n, rel=1e-3)
    small = shape(14_000)
    assert small.flops_per_token > 1.5 * small.flops_per_token_6n, "at 14k, attention and the head are most of the work"


@pytest.mark.parametrize("n_params", [7_999, 20_000_000_001])
def test_refuses_sizes_outside_the_family(n_params: int) -> None:
    with pytest.raises(ValueError, match=f"no model of {n_params} .* 8k to 20B"):
        shape(n_params)


@pytest.mark.parametrize(
    ("n_params", "vocab_size", "context_length", "n_sequences"),
    [(14_000, 512, 128, 2), (56_000, 512, 64, 3), (300_000, 1000, 128, 1)],
)
def test_parameters_and_flops_are_those_torch_counts(
    n_params: int, vocab_size: int, context_length: int, n_sequences: int
) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaForCausalLM

    from raysplit.train.models import model_config

    wanted = shape(n_params, vocab_size=vocab_size, context_length=context_length)
    model = LlamaForCausalLM(model_config(wanted, attention="eager"))
    tokens = torch.randint(0, vocab_size, (n_sequences, context_length))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens).loss.backward()
    assert counter.get_total_flops() == wanted.flops_per_token * n_sequences * context_length
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted.n_params_total
    assert wanted.n_params_total - model.get_input_embeddings().weight.numel() == wanted.n_params_non_embedding
