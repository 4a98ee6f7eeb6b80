"""What the sections of a search space are made of: numbers as people write them, and the class that all are of."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from raysplit.quantities import parse_count, parse_quantity, parse_share

Count = Annotated[int, BeforeValidator(parse_count)]
Quantity = Annotated[float, BeforeValidator(parse_quantity)]
PositiveCount = Annotated[Count, Field(gt=0)]
PositiveQuantity = Annotated[Quantity, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(parse_share), Field(ge=0, lt=1)]
Fraction = Annotated[float, BeforeValidator(parse_share), Field(gt=0, lt=1)]
"""A share of one, written as 0.02 or as 2 %."""

SECRET = "secret"
"""Type of a pydantic error whose value must not be shown."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def without_password(url: str) -> str:
    """The URL, provided that it holds no password: the run folder, the report and errors all show it.

    Raises:
        PydanticCustomError: the URL holds a password.
    """
    if urlsplit(url).password:
        raise PydanticCustomError(
            SECRET, "the URL holds a password; leave it to the environment, e.g. AWS_SECRET_ACCESS_KEY"
        )
    return url
