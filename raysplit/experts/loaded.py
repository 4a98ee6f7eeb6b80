"""Models in memory, loaded when first asked for: they score sequences in batches, or read one text token by token."""

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
import torch

from raysplit.errors import ExpertError, unknown
from raysplit.experts.folders import ExpertFolder, Experts
from raysplit.quantities import counted

Precision = Literal["stored", "fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_DTYPES: dict[Precision, str | torch.dtype] = {"stored": "auto", "fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenScores:
    """Scores of one sequence of n tokens; the first token is only read."""

    log_probs: np.ndarray
    """(n - 1,) float32, nats: log-probability of each token given the tokens before it."""
    is_greedy: np.ndarray
    """(n - 1,) bool: whether no token was likelier."""


def device_of(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one, else the CPU.

    Raises:
        ExpertError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    known = ["cpu"]
    if (accelerator := torch.accelerator.current_accelerator(check_available=True)) is not None:
        kind = accelerator.type
        known += [kind, *(f"{kind}:{number}" for number in range(torch.accelerator.device_count()))]
    if name.startswith("cuda") and known == ["cpu"]:
        raise ExpertError(f"device {name!r}: torch sees no GPU here; give cpu")
    if name not in known:
        raise ExpertError(unknown("device", name, ["auto", *known]))
    return torch.device(name)


class LoadedExpert:
    """A model on a device."""

    def __init__(self, folder: ExpertFolder, *, device: torch.device, precision: Precision) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()  # one a model, for the reading of files that are there
        if precision not in _DTYPES:
            raise ExpertError(unknown("precision", precision, PRECISIONS))
        try:
            self._model = _read(folder, _DTYPES[precision]).to(device).eval()
        except ExpertError:
            raise
        except Exception as error:  # of damaged files transformers and safetensors each raise their own kinds
            raise ExpertError(f"{folder.path}: its model cannot be loaded: {error!r}") from error
        self.folder, self.device = folder, device

    @torch.inference_mode()
    def score(
        self,
        sequences: Sequence[np.ndarray],
        *,
        batch_tokens: int = 8192,
        done: Callable[[int], None] = lambda n_tokens: None,
    ) -> list[TokenScores]:
        """Score every token but the first of each sequence (n >= 2 tokens).

        A sequence longer than the context is read in windows. Each token is scored once, given the earlier tokens of
        its window and the last token before the window.

        Args:
            sequences: each (n,) integers.
            batch_tokens: most tokens in one forward pass, padding included; a pass has at least one window.
            done: is told how many tokens each pass has scored.

        Returns:
            The scores of each sequence, in their order.
        """
        context = self.folder.context_length
        log_probs = [np.empty(len(tokens) - 1, dtype=np.float32) for tokens in sequences]
        is_greedy = [np.empty(len(tokens) - 1, dtype=bool) for tokens in sequences]
        # (sequence, first target, number of targets), the longest first: what does not fit fails at once
        windows = [
            (number, start, min(context, len(tokens) - 1 - start))
            for number, tokens in enumerate(sequences)
            for start in range(0, len(tokens) - 1, context)
        ]
        windows.sort(key=lambda window: -window[2])
        at = 0
        while at < len(windows):
            longest = windows[at][2]
            batch = windows[at : at + max(1, batch_tokens // longest)]
            at += len(batch)
            tokens = np.zeros((len(batch), longest + 1), dtype=np.int64)
            for row, (number, start, n) in zip(tokens, batch, strict=True):
                row[: n + 1] = sequences[number][start : start + n + 1]
            found, greedy = self._pass(torch.from_numpy(tokens).to(self.device))
            for at_row, (number, start, n) in enumerate(batch):
                log_probs[number][start : start + n] = found[at_row, :n]
                is_greedy[number][start : start + n] = greedy[at_row, :n]
            done(sum(n for _, _, n in batch))
        return [TokenScores(log_probs=p, is_greedy=g) for p, g in zip(log_probs, is_greedy, strict=True)]

    def reader(self) -> "TokenReader":
        """A reader of one text, token by token; nothing is read yet."""
        return TokenReader(self._model, self.device)

    def _pass(self, tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        logits = self._model(input_ids=tokens[:, :-1], use_cache=False).logits.float()  # (B, T, V)
        targets = tokens[:, 1:]
        picked = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # (B, T)
        log_probs = picked - torch.logsumexp(logits, dim=-1)
        return log_probs.cpu().numpy(), (logits.argmax(dim=-1) == targets).cpu().numpy()


def _read(folder: ExpertFolder, dtype: str | torch.dtype) -> Any:
    """The model on the CPU; adapters are put into their base, and not added to its weights, which bf16 would round."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model: Any
    if folder.base is None:
        model, told = AutoModelForCausalLM.from_pretrained(folder.path, dtype=dtype, output_loading_info=True)
        return _whole(model, told, folder.path)
    if importlib.util.find_spec("peft") is None:
        raise ExpertError(f"{folder.path}: holds adapters, which need peft: pip install 'raysplit[lora]'")
    # The precision of the training, where this folder says it; the base's may be another.
    config = AutoConfig.from_pretrained(folder.config_folder, trust_remote_code=False)
    model, told = AutoModelForCausalLM.from_pretrained(
        folder.base, config=config, dtype=dtype, output_loading_info=True
    )
    found = _whole(model, told, folder.base).load_adapter(str(folder.path))
    if wrong := sorted([*found.missing_keys, *found.unexpected_keys]):
        raise ExpertError(
            f"{folder.path}: has not the weights that its base {folder.base} wants: {', '.join(wrong[:3])}"
        )
    return model


def _whole(model: Any, told: Mapping[str, Any], path: Path) -> Any:
    """The model, if no weight of it was made up: transformers draws what a file lacks at random."""
    if missing := sorted(told["missing_keys"]):
        raise ExpertError(
            f"{path}: its weights lack {counted(len(missing), 'tensor')} that its config.json asks for, such as "
            f"{missing[0]}; export the model again"
        )
    return model


class TokenReader:
    """A text that one model is reading: the key-value cache is kept, so that each token is computed once."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self._device, self._cache = model, device, None

    @torch.inference_mode()
    def read(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read more tokens (n,), n >= 1, and give (V,) float64 log-probabilities of the next token, in nats."""
        ids = torch.tensor(np.asarray(tokens, dtype=np.int64)[None], device=self._device)
        out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        return torch.log_softmax(out.logits[0, -1].double(), dim=-1).cpu().numpy()


class ModelCache:
    """Holds at most ``n_kept`` models. The least recently used one goes; whoever has taken it keeps it while needed."""

    def __init__(self, experts: Experts, *, device: torch.device, precision: Precision, n_kept: int) -> None:
        self._folders, self._device, self._precision, self._n_kept = experts.folders, device, precision, n_kept
        self._models: OrderedDict[str, LoadedExpert] = OrderedDict()
        self._lock = Lock()

    def take(self, name: str) -> LoadedExpert:
        """The model of that name, loaded if it is not here.

        Raises:
            ExpertError: it cannot be loaded.
        """
        with self._lock:  # so that two requests do not load the same one twice
            if name not in self._models:
                while len(self._models) >= self._n_kept:  # before, or for a moment there would be one more
                    self._models.popitem(last=False)
                self._models[name] = self._load(self._folders[name])
            self._models.move_to_end(name)
            return self._models[name]

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the models in memory, the one used last at the end."""
        return tuple(self._models)

    def _load(self, folder: ExpertFolder) -> LoadedExpert:
        return LoadedExpert(folder, device=self._device, precision=self._precision)
