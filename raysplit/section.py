"""What the sections of a search space are made of: numbers as people write them, and a frozen base without extras."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from raysplit.quantities import parse_count, parse_quantity

Count = Annotated[int, BeforeValidator(parse_count)]
Quantity = Annotated[float, BeforeValidator(parse_quantity)]
PositiveCount = Annotated[Count, Field(gt=0)]
PositiveQuantity = Annotated[Quantity, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[Quantity, Field(gt=0, lt=1)]

SECRET = "secret"
"""Type of pydantic's problem where the value is not to be shown."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def without_password(url: str) -> str:
    """The URL itself: a space is copied into the run folder and the report, and its locations are in every error.

    Raises:
        PydanticCustomError: it holds a password.
    """
    if urlsplit(url).password:
        raise PydanticCustomError(
            SECRET, "the URL holds a password; leave it to the environment, e.g. AWS_SECRET_ACCESS_KEY"
        )
    return url
