"""What a law rests on beside the measurements: the journal's first record, so that a journal answers by itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.errors import RunError
from raysplit.journal import Record
from raysplit.ladder import shape_for

KIND = "spec"
"""Kind of the journal's record that holds it."""
KINDS = (KIND, "setup")
"""Beside it the kind in older journals, whose record also calls its specification so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFamily:
    """The ladder of models (`raysplit.ladder`) as one sweep uses it."""

    vocab_size: int
    context_length: int

    def nearest(self, n_params: int) -> tuple[int, float]:
        """The family's size nearest to an asked N, non-embedding, and its FLOPs per training token."""
        shape = shape_for(n_params, vocab_size=self.vocab_size, context_length=self.context_length)
        return shape.n_params_non_embedding, float(shape.flops_per_token)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """The question, the grid and how to read a loss."""

    spec: ResolvedSpec
    bytes_per_token: Mapping[str, float]
    """Of each domain's held-out text, to give bits per byte beside nats per token; NaN where there is no text. Unused
    where losses are in bits per byte themselves."""
    family: ModelFamily | None = None
    """Tells the FLOPs of sizes that are not the target's; None where only the target's can be asked for."""

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> "RunSpec":
        """Read what `to_data` wrote.

        Raises:
            RunError: the data are something else.
        """
        try:
            return _READER.validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (KIND, *first["loc"])))
            raise RunError(f"the journal's record {KIND!r} cannot be read: {where}: {first['msg']}") from error

    def to_data(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity and no NaN: those are written by name."""
        written: dict[str, Any] = _written(asdict(self))
        return written


def recorded_spec(records: Sequence[Record]) -> Mapping[str, Any] | None:
    """The data of the last record of a specification, for `RunSpec.of_data`; None in a journal that has none."""
    data = next((record.data for record in reversed(records) if record.kind in KINDS), None)
    return data and {KIND if name in KINDS else name: value for name, value in data.items()}


_READER = TypeAdapter(RunSpec)


def _written(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _written(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_written(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
