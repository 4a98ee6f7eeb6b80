"""The loss in chunks: the same value and gradients as from all logits at once, in less memory."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysplit.ladder import shape_for
from raysplit.train.loss import mean_loss
from raysplit.train.models import build_model, undrawn_model
from tests.train.test_memory import LiveBytes

N_TOKENS, WIDTH, VOCAB = 1000, 16, 512


def gradients(chunk_tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(WIDTH, VOCAB, bias=False, dtype=dtype)
    head.weight.data.copy_(torch.randn(VOCAB, WIDTH, generator=generator))
    hidden = torch.randn(N_TOKENS, WIDTH, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(VOCAB, (N_TOKENS,), generator=generator)
    loss = mean_loss(head, hidden, targets, chunk_tokens=chunk_tokens)
    loss.backward()
    assert head.weight.grad is not None
    assert hidden.grad is not None
    return loss.detach(), head.weight.grad, hidden.grad


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("chunk_tokens", [1, 300, 999])
def test_chunks_change_neither_the_loss_nor_the_gradients(chunk_tokens: int, dtype: torch.dtype, rel: float) -> None:
    if chunk_tokens == 1 and dtype == torch.bfloat16:
        pytest.skip("a thousand sums in bf16, which nobody makes")
    whole, chunked = gradients(N_TOKENS, dtype), gradients(chunk_tokens, dtype)
    assert chunked[0].dtype == torch.float32
    assert chunked[0].item() == pytest.approx(whole[0].item(), rel=1e-5)
    for one, other in zip(chunked[1:], whole[1:], strict=True):
        assert (one - other).norm() <= rel * other.norm()


def test_chunks_take_less_memory() -> None:
    """At the most, of all that the forward and the backward pass hold at one time."""
    whole, chunked = most_bytes(N_TOKENS), most_bytes(100)
    assert whole > 3 * 4 * N_TOKENS * VOCAB, "logits, log-probabilities and a gradient"
    assert chunked < 0.25 * whole


def most_bytes(chunk_tokens: int) -> int:
    with LiveBytes() as live:
        gradients(chunk_tokens, torch.float32)
    return live.most


def test_the_model_that_is_trained_is_the_model_that_is_exported() -> None:
    shape = shape_for(14_000, vocab_size=96, context_length=32)
    plain, trained = build_model(shape, seed=0), undrawn_model(shape, trains=True)
    trained.load_state_dict(plain.state_dict())
    tokens = torch.from_numpy(np.random.default_rng(0).integers(96, size=(3, 33)))
    logits = plain(input_ids=tokens[:, :-1]).logits
    expected = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert trained(tokens).item() == pytest.approx(expected.item(), rel=1e-6)
