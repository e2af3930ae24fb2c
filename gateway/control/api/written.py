"""Documents that the config's own reader judges, so that the API and the config never differ.

Their models say the shape, for the description of the API and for what nobody else would refuse;
what goes together, and all words about it, are the reader's (gateway/config).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, PrivateAttr, StringConstraints, ValidationError, model_validator

from gateway.config import Problem
from gateway.config.bounds import (
    BURST_MAX,
    LIMIT_MAX,
    REQUESTS_PER_MINUTE_MAX,
    REQUESTS_PER_SECOND_MAX,
)
from gateway.control.api.fields import Model
from gateway.control.api.problems import field_errors
from gateway.operations.documents import Written

if TYPE_CHECKING:
    from pydantic import ModelWrapValidatorHandler

AmountText = Annotated[
    str, StringConstraints(pattern=r"^\d{1,10}(\.\d{1,6})?$"), Field(examples=["12.5"])
]
UnitPriceText = Annotated[
    str, StringConstraints(pattern=r"^\d{1,10}(\.\d{1,12})?$"), Field(examples=["0.001"])
]
PercentText = Annotated[
    str, StringConstraints(pattern=r"^\d{1,3}(\.\d{1,2})?$"), Field(examples=["12.5"])
]
MoneyText = Annotated[
    str,
    StringConstraints(pattern=r"^\d{1,12}(\.\d{1,3})? [a-z]{3}$"),
    Field(examples=["19.00 usd"]),
]


class WrittenModel(Model):
    """A body that is kept as it came, with all that is wrong with its shape."""

    _written: Written = PrivateAttr(default_factory=lambda: Written({}))

    @property
    def written(self) -> Written:
        """For operations."""
        return self._written

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        mistakes: tuple[Problem, ...] = ()
        try:
            made = handler(data)
        except ValidationError as failure:
            if not isinstance(data, dict):
                raise
            made = cls.model_construct()
            mistakes = tuple(Problem(*error) for error in field_errors(failure))
        made._written = Written(data, mistakes)  # noqa: SLF001 - of this class
        return made


class CallLimits(Model):
    """How often calls may come, and how many may run at once. Null or 0: no limit."""

    requests_per_second: Annotated[int, Field(ge=0, le=REQUESTS_PER_SECOND_MAX)] | None = None
    requests_per_minute: Annotated[int, Field(ge=0, le=REQUESTS_PER_MINUTE_MAX)] | None = None
    burst: Annotated[int, Field(ge=0, le=BURST_MAX)] | None = Field(
        default=None, description="How many may come together; null: as many as the rate's."
    )
    requests_per_month: Annotated[int, Field(ge=0, le=LIMIT_MAX)] | None = None
    concurrency: Annotated[int, Field(ge=0, le=LIMIT_MAX)] | None = None


class RouteCaps(Model):
    """The most that an account may spend on a route. Days and months are UTC's. Null: no cap."""

    day: AmountText | None = None
    month: AmountText | None = None
    total: AmountText | None = None


class PlanCaps(RouteCaps):
    """The most that an account may spend, and each of its sessions."""

    session: AmountText | None = None
