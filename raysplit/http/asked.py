"""What may be asked over HTTP, and in which shape observations come: checked here, before the law sees it."""

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from raysplit.http.refusals import Refused
from raysplit.live.answers import Question
from raysplit.live.observing import MAX_BATCH
from raysplit.quantities import BEGINS_AS_NUMBER, MAX_LENGTH, parse_count, parse_quantity
from raysplit.runs import MAX_COUNT, Observation

MAX_BODY_BYTES = 8 * 2**20
"""Room for `MAX_BATCH` rows with every field given."""
_MAX_FLOPS = 1e40
_MAX_SIZES = 32
_MAX_WEIGHTS = 256

_NAME = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$"
"""A name is no path: no separators, no dot at its head."""
_NAME_OR_NONE = r"^([^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*)?$"


_LOST_PLUS = re.compile(r"(?<=\d[eE]) (?=\d)")

_AsText = Annotated[
    str, Field(pattern=BEGINS_AS_NUMBER, max_length=MAX_LENGTH, description="As people write it: 1.3B, 8.2M, 3e21.")
]


def _written(parse: Callable[[object], float], kind: type[float], bounds: Any) -> BeforeValidator:
    """A number is read as everywhere, and described as a number within bounds or such a text."""

    def read(value: object) -> float:
        # A plus in an address means a blank, and Python writes 3e+21.
        return parse(_LOST_PLUS.sub("+", value) if isinstance(value, str) else value)

    return BeforeValidator(read, json_schema_input_type=Annotated[kind, bounds] | _AsText)


_ANY_COUNT, _FROM_ONE = Field(ge=0, le=MAX_COUNT), Field(ge=1, le=MAX_COUNT)
_POSITIVE, _NOT_NEGATIVE = Field(gt=0, allow_inf_nan=False), Field(ge=0, allow_inf_nan=False)
_FLOPS = Field(gt=0, le=_MAX_FLOPS, allow_inf_nan=False)
_PARAMETERS = Field(gt=0, le=MAX_COUNT, allow_inf_nan=False)
_TOKENS = Field(ge=0, le=MAX_COUNT, allow_inf_nan=False)

Count = Annotated[int, _ANY_COUNT, _written(parse_count, int, _ANY_COUNT)]
Size = Annotated[int, _FROM_ONE, _written(parse_count, int, _FROM_ONE)]
MaybeSize = Annotated[int | None, _FROM_ONE, _written(parse_count, int, _FROM_ONE)]
Positive = Annotated[float, _POSITIVE, _written(parse_quantity, float, _POSITIVE)]
Amount = Annotated[float, _NOT_NEGATIVE, _written(parse_quantity, float, _NOT_NEGATIVE)]
MaybeFlops = Annotated[float | None, _FLOPS, _written(parse_quantity, float, _FLOPS)]
Parameters = Annotated[float, _PARAMETERS, _written(parse_quantity, float, _PARAMETERS)]
"""Of a point of the law, which need not be whole."""
Tokens = Annotated[float, _TOKENS, _written(parse_quantity, float, _TOKENS)]
Version = Annotated[
    int | SkipJsonSchema[None], Field(ge=1, le=MAX_COUNT, description="An earlier law; the latest when left out.")
]


class Row(BaseModel):
    """One measured loss; units as in `raysplit.runs.Observation`."""

    model_config = ConfigDict(extra="forbid")

    n_params: Annotated[Size, Field(description="N, non-embedding parameters.")]
    pretrain_tokens: Annotated[Count, Field(description="D, tokens of the mixture.")]
    specialize_tokens: Annotated[Count, Field(description="D', tokens of the domain; 0 for the pretrained model.")]
    domain: Annotated[str, Field(pattern=_NAME, max_length=200)]
    loss: Annotated[Positive, Field(description="Nats per token on the domain's held-out text.")]
    seed: Count = 0
    weight: Positive = 1.0
    flops: Amount | None = None
    bits_per_byte: Amount | None = None
    wall_seconds: Amount | None = None
    trial: Annotated[str, Field(pattern=_NAME_OR_NONE, max_length=200)] = ""

    def observation(self) -> Observation:
        return Observation(**{name: value for name, value in self if value is not None})


class Batch(BaseModel):
    """Observations to add: all of them are stored, or none."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    observations: Annotated[list[Row], Field(min_length=1, max_length=MAX_BATCH)]


class ThisLaw(BaseModel):
    """Which law answers."""

    model_config = ConfigDict(extra="forbid")

    version: Version = None


class AskAdvice(ThisLaw):
    """A question that may differ from the sweep's own target."""

    budget_flops: MaybeFlops = None
    n_params: Annotated[
        list[Size],
        Field(max_length=_MAX_SIZES, description="Sizes to choose between; repeat for several."),
    ] = []
    weight: Annotated[
        list[str],
        Field(max_length=_MAX_WEIGHTS, description="DOMAIN=WEIGHT, how much its loss counts; repeat for several."),
    ] = []
    accounting: Literal["shared", "per-expert"] | SkipJsonSchema[None] = None

    def question(self) -> Question:
        """Raises: Refused: a weight is not DOMAIN=NUMBER."""
        return Question(
            budget_flops=self.budget_flops,
            n_params=tuple(sorted(set(self.n_params))) or None,
            weights=dict(map(_weight, self.weight)) or None,
            accounting=self.accounting,
        )


class AskCurve(AskAdvice):
    at_n_params: Annotated[MaybeSize, Field(description="The curve's size; the advised one when left out.")] = None


class AskLoss(ThisLaw):
    """A point of the law."""

    domain: str
    n_params: Parameters
    pretrain_tokens: Tokens
    specialize_tokens: Tokens
    level: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, description="Probability of the interval.")] = 0.9


class AskRows(BaseModel):
    """A page of the observations."""

    model_config = ConfigDict(extra="forbid")

    offset: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class AskEvents(BaseModel):
    """Where a stream begins and what of it is wanted."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[
        int, Field(ge=-1, le=MAX_COUNT, description="Number of the last record known; -1 for all there are.")
    ] = -1
    kind: Annotated[
        list[str], Field(max_length=32, description="Kinds of record; repeat for several, all when left out.")
    ] = []


def key_of(question: Question) -> tuple[Any, ...]:
    """Equal for equal questions."""
    fields = asdict(question)
    weights = fields.pop("weights")
    return (*fields.values(), tuple(sorted(weights.items())) if weights else None)


def _weight(text: str) -> tuple[str, float]:
    domain, _, number = text.rpartition("=")
    try:
        value = parse_quantity(number)
    except ValueError:
        value = float("nan")
    if not domain or not 0 < value <= 1e9:
        raise Refused(422, "weight: must be DOMAIN=WEIGHT with a positive number", field="weight", value=text)
    return domain, value
