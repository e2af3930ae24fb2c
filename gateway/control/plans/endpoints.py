"""What can be done with plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.writing import plan_document
from gateway.control.api.cursors import read_text_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import PageQuery
from gateway.control.api.roles import EDITORS, EVERYBODY
from gateway.control.plans.models import NewPlan, Plan, PlanPatch, Plans
from gateway.operations import plans

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.offerings import StoredPlan

PATH = "/v1/plans"
ONE = f"{PATH}/{{plan}}"


def document(stored: StoredPlan) -> Plan:
    """The plan's document."""
    return Plan.model_validate(
        {"id": stored.plan_id, "managed_by": stored.managed_by, **plan_document(stored.plan)}
    )


async def create(ask: Ask, body: NewPlan) -> Plan:
    """Make one."""
    return document(await plans.create_plan(ask.ledger, ask.platform_id, body.written))


async def read(ask: Ask) -> Plan:
    """One of them."""
    return document(await plans.find_plan(ask.ledger, ask.platform_id, ask.path["plan"]))


async def read_list(ask: Ask, query: PageQuery) -> Plans:
    """All, by slug."""
    after = read_text_cursor(query.cursor)
    page = await ask.ledger.plans_page(ask.platform_id, after=after, limit=query.limit)
    return Plans(
        data=[document(stored) for stored in page],
        next_cursor=write_cursor(page[-1].plan.slug) if len(page) == query.limit else None,
    )


async def change(ask: Ask, body: PlanPatch) -> Plan:
    """Change it for all accounts that have it, from their very next call."""
    changed = await plans.change_plan(
        ask.ledger, ask.counters, ask.platform_id, ask.path["plan"], body.written
    )
    return document(changed)


async def delete(ask: Ask) -> None:
    """Delete it, if no account has it."""
    await plans.delete_plan(ask.ledger, ask.platform_id, ask.path["plan"])


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Make a plan", EDITORS, create,
        body=NewPlan, answers=Plan, status=201, creates=True,
    ),
    Endpoint("GET", PATH, "List plans", EVERYBODY, read_list, query=PageQuery, answers=Plans),
    Endpoint("GET", ONE, "Read a plan", EVERYBODY, read, answers=Plan),
    Endpoint(
        "PATCH", ONE, "Change a plan", EDITORS, change, body=PlanPatch, answers=Plan, reads=read,
        description="Accounts that have it follow it on their next call. "
        "What it gives for a period is given from the next period on.",
    ),
    Endpoint("DELETE", ONE, "Delete a plan that no account has", EDITORS, delete, reads=read),
)  # fmt: skip
