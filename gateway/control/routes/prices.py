"""Prices as the API writes and reads them: with the keys of the config's [routes.price]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from gateway.config.meters import ESTIMATE_PER_UNIT_MAX, TIERS_MAX
from gateway.config.price_tables import CASES_MAX
from gateway.config.rpc_prices import NAMES_MAX
from gateway.control.api.fields import Model
from gateway.control.api.written import AmountText, UnitPriceText
from policies.meters import UNITS_MAX

SOURCES_MAX = 50
SourceText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500),
    Field(examples=["response.json:/usage/total_tokens"]),
]
Sources = SourceText | Annotated[list[SourceText], Field(min_length=1, max_length=SOURCES_MAX)]
UnitName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Units = Annotated[int, Field(ge=0, le=UNITS_MAX)]
OnMissing = Literal["reserved", "minimum", "estimate"]


class Tier(Model):
    """A price up to a unit of the account's billing period; the last is for all beyond."""

    up_to: Annotated[int, Field(ge=1, le=UNITS_MAX)] | None = None
    credits_per_unit: UnitPriceText


class Meter(Model):
    """What is counted, and what it costs: `credits_per_unit`, or `tiers`."""

    model_config = ConfigDict(serialize_by_alias=True)

    unit: UnitName
    from_: Sources = Field(
        alias="from",
        description="Where the units are read; the first that has a value counts. "
        "Presets stand for several, as in openai.total_tokens.",
    )
    credits_per_unit: UnitPriceText | None = None
    tiers: Annotated[list[Tier], Field(max_length=TIERS_MAX)] | None = None
    included_units: Units | None = Field(default=None, description="Of each call, for nothing.")
    reserve_units: Units = Field(
        description="Held before the call, and charged if the agent reports no usage."
    )
    reserve_from: Sources | None = Field(
        default=None, description="Held instead, where the request says it."
    )
    on_missing: OnMissing | None = None
    estimate_from: SourceText | None = None
    estimate_per_unit: Annotated[int, Field(ge=1, le=ESTIMATE_PER_UNIT_MAX)] | None = None


class Outcome(Model):
    """Charged only if the answer says that its work was delivered."""

    model_config = ConfigDict(serialize_by_alias=True)

    from_: Sources | None = Field(
        default=None, alias="from", examples=["response.json:/status=delivered"]
    )
    credits: UnitPriceText | None = None
    on_missing: Literal["reserved", "minimum"] | None = None


class PriceCase(Model):
    """What is different for one value of a table."""

    per_request: AmountText | None = None
    minimum: AmountText | None = None
    maximum: AmountText | None = None
    credits_per_unit: dict[str, UnitPriceText | None] | None = None
    reserve_units: dict[str, Units | None] | None = None


class PriceTable(Model):
    """Other prices for some values of the request, such as models or tools."""

    by: SourceText | None = Field(default=None, examples=["request.json:/model"])
    listed_only: bool | None = Field(default=None, description="Other values are refused.")
    cases: Annotated[dict[str, PriceCase | None], Field(max_length=CASES_MAX)] | None = None


class RpcPrices(Model):
    """What JSON-RPC calls cost, beside the rest of the price; what has no price is free."""

    default_tool_credits: AmountText | None = None
    tool_error: Literal["nothing", "actual"] | None = None
    tools: Annotated[dict[str, AmountText | None], Field(max_length=NAMES_MAX)] | None = None
    methods: Annotated[dict[str, AmountText | None], Field(max_length=NAMES_MAX)] | None = None


class Price(Model):
    """What a call costs, in credits. Null says nothing: the default holds."""

    per_request: AmountText | None = None
    minimum: AmountText | None = None
    maximum: AmountText | None = None
    meters: list[Meter] | None = None
    outcome: Outcome | None = None
    table: PriceTable | None = None
    jsonrpc: RpcPrices | None = None
