"""The one list of questions that a live law can be asked, with what each needs and what it is answered with.

A question is checked when it is made. Every face of the law follows from the list (`_Questions`): the service in this
process, the law actor and its clients, HTTP with its OpenAPI, and the client over HTTP. A new question is a class here,
a line in the list, and its handler: the method ``answer_NAME`` of the service.
"""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import KW_ONLY, fields
from typing import Annotated, Any, ClassVar, Generic, Literal, ParamSpec, TypeVar, cast, get_args, overload

import pandas as pd
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema

from raysplit.errors import LawError, RaysplitError, SplitError, TableError
from raysplit.law import Law
from raysplit.live.answers import (
    Accepted,
    AdviceStep,
    Curve,
    Ending,
    Event,
    GoOn,
    LawStamp,
    LiveAdvice,
    LivePrediction,
    ObservationPage,
    Status,
    TrialState,
    WholeLaw,
)
from raysplit.live.mistakes import mistake_of
from raysplit.live.observations import MAX_BATCH, as_row, check_batch
from raysplit.quantities import BEGINS_AS_NUMBER, MAX_LENGTH, parse_count, parse_quantity, parse_share
from raysplit.runs import MAX_COUNT, Observation

A = TypeVar("A")
P = ParamSpec("P")
Group = Literal["ask", "ingest", "look"]
"""Which method, and so whose threads, of the law actor answers: no kind of question waits for another kind's work."""

_MAX_FLOPS = 1e40
_MAX_SIZES, _MAX_WEIGHTS, _MAX_KINDS = 32, 256, 32
_MAX_PAGE = 1000
_NAME = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$"
"""A name is no path: no separators, no dot at its head."""
_NAME_OR_NONE = r"^([^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*)?$"
_LOST_PLUS = re.compile(r"(?<=\d[eE]) (?=\d)")

# Numbers, read as everywhere (`raysplit.quantities`), and described as a number within bounds or such a text.

_AsText = Annotated[
    str, Field(pattern=BEGINS_AS_NUMBER, max_length=MAX_LENGTH, description="As people write it: 1.3B, 8.2M, 3e21.")
]


def _number(kind: type[float], parse: Callable[[object], float] = parse_quantity, /, **limits: Any) -> tuple[Any, ...]:
    """How a number within limits is read, and described."""
    bounds = Field(**limits)

    def read(value: object) -> float:
        # A plus in an address means a blank, and Python writes 3e+21.
        return parse(_LOST_PLUS.sub("+", value) if isinstance(value, str) else value)

    return bounds, BeforeValidator(read, json_schema_input_type=Annotated[kind, bounds] | _AsText)


def _if_given(value: object, check: ValidatorFunctionWrapHandler) -> Any:
    return None if value is None else check(value)


_OR_NONE = WrapValidator(_if_given)
"""A number that may be left out."""
Count = Annotated[int, *_number(int, parse_count, ge=0, le=MAX_COUNT)]
Size = Annotated[int, *_number(int, parse_count, ge=1, le=MAX_COUNT)]
MaybeSize = Annotated[int | None, *_number(int, parse_count, ge=1, le=MAX_COUNT), _OR_NONE]
Positive = Annotated[float, *_number(float, gt=0, allow_inf_nan=False)]
Amount = Annotated[float | None, *_number(float, ge=0, allow_inf_nan=False), _OR_NONE]
MaybeFlops = Annotated[float | None, *_number(float, gt=0, le=_MAX_FLOPS, allow_inf_nan=False), _OR_NONE]
Parameters = Annotated[float, *_number(float, gt=0, le=MAX_COUNT, allow_inf_nan=False)]
"""Of a point of the law, which need not be whole."""
Tokens = Annotated[float, *_number(float, ge=0, le=MAX_COUNT, allow_inf_nan=False)]
Version = Annotated[
    Annotated[int, Field(ge=1, le=MAX_COUNT)] | SkipJsonSchema[None],
    Field(description="An earlier law; the latest when left out."),
]


def _sizes(value: object) -> object:
    """One size is as good as a list of one; the same size twice is one."""
    if value is None:
        return ()
    sizes = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return tuple(dict.fromkeys(sizes))


def _weights(value: object) -> Mapping[str, float]:
    """A mapping, or DOMAIN=WEIGHT written out as in an address."""
    given = value or {}
    if not isinstance(given, Mapping):
        pairs = given if isinstance(given, list | tuple) else (given,)
        given = {str(pair).rpartition("=")[0]: str(pair).rpartition("=")[2] for pair in pairs}
    read = {}
    for domain, number in given.items():
        try:
            read[str(domain)] = parse_quantity(number)
        except ValueError:
            read[str(domain)] = float("nan")
        if not domain or not 0 < read[str(domain)] <= 1e9:
            raise ValueError(f"must be DOMAIN=WEIGHT with a positive number, got {domain}={number}")
    return read


Sizes = Annotated[
    tuple[Size, ...],
    Field(max_length=_MAX_SIZES),
    BeforeValidator(_sizes, json_schema_input_type=Annotated[list[Size], Field(max_length=_MAX_SIZES)]),
    Field(description="Sizes to choose between; repeat for several."),
]
Weights = Annotated[
    Mapping[str, float],
    BeforeValidator(_weights, json_schema_input_type=Annotated[list[str], Field(max_length=_MAX_WEIGHTS)]),
    Field(alias="weight", description="DOMAIN=WEIGHT, how much its loss counts; repeat for several."),
]
Accounting = Annotated[
    Literal["shared", "per-expert"] | SkipJsonSchema[None],
    Field(description="shared: one seed for all experts; per-expert: each pays for its own."),
]
Seeds = Annotated[
    Literal["shared", "independent"] | SkipJsonSchema[None],
    Field(description="shared: all experts leave one seed; independent: the budget pays for a seed of each."),
]


MaxGeneralLoss = Annotated[
    float | None, *_number(float, gt=0, allow_inf_nan=False), _OR_NONE,
    Field(description="The most loss of the seed, or of each expert of a base, on general text; in the sweep's unit."),
]  # fmt: skip
MaxGeneralRise = Annotated[
    float | None, *_number(float, parse_share, gt=0, lt=1), _OR_NONE,
    Field(description="By which share each expert's loss on general text may be above its base's: 0.02, or 2 %."),
]  # fmt: skip


class ObservationRow(BaseModel):
    """One measured loss; units as in `raysplit.runs.Observation`."""

    model_config = ConfigDict(extra="forbid")

    n_params: Annotated[Size, Field(description="N, non-embedding parameters.")]
    pretrain_tokens: Annotated[Count, Field(description="D, tokens of the mixture.")]
    specialize_tokens: Annotated[Count, Field(description="D', tokens of the domain; 0 for the pretrained model.")]
    domain: Annotated[str, Field(pattern=_NAME, max_length=200)]
    loss: Annotated[Positive, Field(description="Nats per token on the domain's held-out text.")]
    seed: Count = 0
    weight: Positive = 1.0
    flops: Amount = None
    bits_per_byte: Amount = None
    wall_seconds: Amount = None
    trial: Annotated[str, Field(pattern=_NAME_OR_NONE, max_length=200)] = ""
    replay_share: Annotated[float, *_number(float, parse_share, ge=0, lt=1)] = 0.0
    general_loss: Annotated[float | None, *_number(float, gt=0, allow_inf_nan=False), _OR_NONE] = None

    def observation(self) -> Observation:
        return Observation(**{name: value for name, value in self if value is not None})

    def question(self) -> "ShouldGoOn":
        return ShouldGoOn(self.observation())

    @classmethod
    def of(cls, question: "ShouldGoOn") -> dict[str, Any]:
        return as_row(question.observation)


class ObservationBatch(BaseModel):
    """Observations to add: all of them are stored, or none."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    observations: Annotated[list[ObservationRow], Field(min_length=1, max_length=MAX_BATCH)]

    def question(self) -> "Observe":
        return Observe([row.observation() for row in self.observations])

    @classmethod
    def of(cls, question: "Observe") -> dict[str, Any]:
        return {"schema_version": 1, "observations": [as_row(observation) for observation in question.observations]}


class Question(Generic[A]):
    """What is asked, and how it goes over HTTP."""

    name: ClassVar[str]
    """Of the method that asks it, set by `QuestionMethod`."""
    answer: ClassVar[Any]
    """Type of what it is answered with."""
    path: ClassVar[str]
    """Over HTTP; empty for what is asked on the cluster alone."""
    body: ClassVar[type[ObservationBatch] | type[ObservationRow] | None]
    """Of a POST; a question without one is a GET and its fields the query."""
    writes: ClassVar[bool]
    """Whether it needs the right to write."""
    group: ClassVar[Group]
    error: ClassVar[type[RaysplitError]]
    """Of a mistake in it."""

    def __init_subclass__(
        cls,
        path: str = "",
        body: type[ObservationBatch] | type[ObservationRow] | None = None,
        writes: bool = False,
        group: Group = "ask",
        error: type[RaysplitError] = LawError,
    ) -> None:
        cls.path, cls.body, cls.writes, cls.group, cls.error = path, body, writes, group, error
        (cls.answer,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]

    @classmethod
    def made(cls, *args: Any, **given: Any) -> "Question[A]":
        """The question, its mistakes in our words.

        Raises:
            RaysplitError: of the kind `error`: a field is unknown or missing, or its value impossible.
        """
        try:
            return cls(*args, **given)
        except ValidationError as error:
            mistake = mistake_of(
                error.errors(include_url=False), known=[field.name for field in fields(cast(Any, cls))]
            )
            raise cls.error(mistake.message) from None


_STRICT = ConfigDict(extra="forbid", validate_by_name=True)


@dataclass(frozen=True, config=_STRICT)
class SplitQuestion:
    """What a question about splits may change of the sweep's own target, and which law it asks."""

    _: KW_ONLY
    budget_flops: MaybeFlops = None
    n_params: Sizes = ()
    weights: Weights = Field(default_factory=dict)
    accounting: Accounting = None
    seeds: Seeds = None
    max_general_loss: MaxGeneralLoss = None
    max_general_rise: MaxGeneralRise = None
    version: Version = None


@dataclass(frozen=True, config=_STRICT)
class AskAdvice(Question[LiveAdvice], SplitQuestion, path="/v1/advise", error=SplitError):
    """The best split of the sweep's target, or of a budget, sizes, weights and accounting of your own."""


@dataclass(frozen=True, config=_STRICT)
class AskPrediction(Question[LivePrediction], path="/v1/predict"):
    """The loss that the law expects at a point, with the interval of one measurement there."""

    domain: str
    _: KW_ONLY
    n_params: Parameters
    pretrain_tokens: Tokens
    specialize_tokens: Tokens
    level: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, description="Probability of the interval.")] = 0.9
    replay_share: Annotated[
        Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | SkipJsonSchema[None],
        Field(description="p, where the sweep tries several; the least when left out."),
    ] = None
    version: Version = None


@dataclass(frozen=True, config=_STRICT)
class AskCurve(Question[Curve], SplitQuestion, path="/v1/curve", error=SplitError):
    """The best loss against D / T at one size, its interval, and the measured splits of about this budget."""

    _: KW_ONLY
    at_n_params: Annotated[MaybeSize, Field(description="The curve's size; the advised one when left out.")] = None


@dataclass(frozen=True, config=_STRICT)
class AskWholeLaw(Question[WholeLaw], path="/v1/law"):
    """The fitted law itself, as `raysplit fit` writes it."""

    version: Version = None


@dataclass(frozen=True, config=_STRICT)
class AskLaw(Question[Law]):
    """The fitted law itself, as an object."""

    version: Version = None


@dataclass(frozen=True, config=_STRICT)
class AskLaws(Question[list[LawStamp]], path="/v1/laws"):
    """Every law that can be asked for by its version, oldest first."""


@dataclass(frozen=True, config=_STRICT)
class AskHistory(Question[list[AdviceStep]], path="/v1/history"):
    """How the advice at the sweep's own target moved: what every law that is kept says about it, oldest first."""


@dataclass(frozen=True, config=_STRICT)
class AskStamp(Question[LawStamp | None]):
    """Which law is the latest; None before there is one."""


@dataclass(frozen=True, config=_STRICT)
class AskStatus(Question[Status], path="/v1/status", group="look"):
    """Where the sweep stands."""


@dataclass(frozen=True, config=_STRICT)
class AskTrials(Question[list[TrialState]], path="/v1/trials", group="look"):
    """Every trunk and branch of the sweep and how far it has come."""


@dataclass(frozen=True, config=_STRICT)
class AskEndings(Question[list[Ending]], path="/v1/endings", group="look"):
    """Every trial that was stopped or has failed, in the order of the journal, and why."""


@dataclass(frozen=True, config=_STRICT)
class AskPage(Question[ObservationPage], path="/v1/observations", group="look"):
    """What the law knows, a page at a time, ordered by size, tokens and domain."""

    _: KW_ONLY
    offset: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    limit: Annotated[int, Field(ge=1, le=_MAX_PAGE)] = 100


@dataclass(frozen=True, config=_STRICT)
class AskTable(Question[pd.DataFrame], group="look"):
    """Every observation so far, as `raysplit.runs.to_frame` lays it out."""


@dataclass(frozen=True, config=_STRICT)
class AskEvents(Question[list[Event]], path="/v1/events", group="look"):
    """The sweep's records beyond one, oldest first; over HTTP a stream of them as they are written."""

    after: Annotated[
        int, Field(ge=-1, le=MAX_COUNT, description="Number of the last record known; -1 for all there are.")
    ] = -1
    kind: Annotated[
        tuple[str, ...],
        Field(max_length=_MAX_KINDS, description="Kinds of record; repeat for several, all when left out."),
    ] = ()


def _batch(value: Any) -> Sequence[Observation]:
    """Refused here when it is too long to send."""
    check_batch(value)
    return list(value)


def _observation(value: Any) -> Observation:
    check_batch([value])
    return cast(Observation, value)


@dataclass(frozen=True, config=_STRICT)
class Observe(
    Question[Accepted], path="/v1/observations", body=ObservationBatch, writes=True, group="ingest", error=TableError
):  # fmt: skip
    """Add runs measured elsewhere: all of a batch is on disk when this answers, or nothing of it.

    The same observations again change nothing.
    """

    observations: Annotated[Sequence[Observation], PlainValidator(_batch)]


@dataclass(frozen=True, config=_STRICT)
class ShouldGoOn(Question[GoOn], path="/v1/should-go-on", body=ObservationRow, error=TableError):
    """Whether a run that raysplit did not start is worth its next tokens; nothing is stored."""

    observation: Annotated[Observation, PlainValidator(_observation)]


class QuestionMethod(Generic[P, A]):
    """A question as a method: makes it of the arguments and asks it."""

    def __init__(self, question: Callable[P, Question[A]]) -> None:
        self.question = cast(type[Question[A]], question)
        self.__doc__ = question.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.question.name = name

    @overload
    def __get__(self, law: None, owner: type) -> "QuestionMethod[P, A]": ...
    @overload
    def __get__(self, law: "AwaitedLaw", owner: type) -> Callable[P, Coroutine[Any, Any, A]]: ...
    @overload
    def __get__(self, law: "AnsweringLaw", owner: type) -> Callable[P, A]: ...
    def __get__(self, law: "AnsweringLaw | AwaitedLaw | None", owner: type) -> Any:
        if law is None:
            return self

        def ask(*args: P.args, **given: P.kwargs) -> Any:
            return law.ask(self.question.made(*args, **given))

        ask.__doc__, ask.__name__ = self.__doc__, self.question.name
        return ask


class _Questions:
    """The list. Each is a method of `AnsweringLaw` and of `AwaitedLaw`."""

    advise = QuestionMethod(AskAdvice)
    predict = QuestionMethod(AskPrediction)
    curve = QuestionMethod(AskCurve)
    law = QuestionMethod(AskLaw)
    whole_law = QuestionMethod(AskWholeLaw)
    laws = QuestionMethod(AskLaws)
    history = QuestionMethod(AskHistory)
    stamp = QuestionMethod(AskStamp)
    status = QuestionMethod(AskStatus)
    trials = QuestionMethod(AskTrials)
    endings = QuestionMethod(AskEndings)
    observations = QuestionMethod(AskTable)
    observations_page = QuestionMethod(AskPage)
    observe = QuestionMethod(Observe)
    should_go_on = QuestionMethod(ShouldGoOn)
    events = QuestionMethod(AskEvents)


class AnsweringLaw(_Questions):
    """A law that can be asked; a method raises what its question's `error` says, and what the answer's maker raises."""

    def ask(self, question: Question[A]) -> A:
        raise NotImplementedError


class AwaitedLaw(_Questions):
    """The same methods, to be awaited."""

    async def ask(self, question: Question[A]) -> A:
        raise NotImplementedError


QUESTIONS: tuple[type[Question[Any]], ...] = tuple(
    asked.question for asked in vars(_Questions).values() if isinstance(asked, QuestionMethod)
)


# As a query of an address, in which a list is the same name several times.


_READERS: dict[str, TypeAdapter[Any]] = {question.name: TypeAdapter(question) for question in QUESTIONS}


def query_schema(question: type[Question[Any]]) -> dict[str, Any]:
    """JSON Schema of a GET's fields, by their names in the query."""
    return _READERS[question.name].json_schema(by_alias=True, mode="validation")


_LISTS = {
    question.name: {
        name for name, field in query_schema(question)["properties"].items() if field.get("type") == "array"
    }
    for question in QUESTIONS
    if question.path and not question.body
}
"""Fields that may be given several times."""


def of_query(question: type[Question[A]], pairs: Sequence[tuple[str, str]]) -> Question[A]:
    """The question that an address asks.

    Raises:
        ValidationError: of pydantic, for whoever tells it.
    """
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in _LISTS[question.name]:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    found: Question[A] = _READERS[question.name].validate_python(given)
    return found


def to_query(question: Question[Any]) -> list[tuple[str, str]]:
    """What `of_query` reads back; what is left out is not written."""
    pairs: list[tuple[str, str]] = []
    for field in fields(cast(Any, question)):
        value = getattr(question, field.name)
        if isinstance(value, Mapping):
            pairs += [("weight", f"{name}={number!r}") for name, number in value.items()]
        elif isinstance(value, tuple):
            pairs += [(field.name, str(each)) for each in value]
        elif value is not None:
            pairs.append((field.name, str(value)))
    return pairs
