"""One plan, pack or route on its own, as the API has it: read by the code that reads the config's.

A null in a document says as little as a key that is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.config.routes import read_route
from gateway.config.section import Section
from gateway.config.selling import read_pack, read_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.problems import Problem
    from policies.catalog import Pack, Plan, Route


class PlanRead(NamedTuple):
    """A plan, which is of no use where there are problems."""

    plan: Plan
    problems: list[Problem]


class PackRead(NamedTuple):
    """A pack, which is of no use where there are problems."""

    pack: Pack
    problems: list[Problem]


class RouteRead(NamedTuple):
    """A route, which is of no use where there are problems."""

    route: Route
    problems: list[Problem]


def read_plan_document(document: Mapping[str, Any]) -> PlanRead:
    """The plan that a document describes; problems name fields as in `caps.day`."""
    problems: list[Problem] = []
    return PlanRead(read_plan(_section(document, problems)), problems)


def read_pack_document(document: Mapping[str, Any]) -> PackRead:
    """The pack that a document describes; problems name fields, as in `credits`."""
    problems: list[Problem] = []
    return PackRead(read_pack(_section(document, problems)), problems)


def read_route_document(document: Mapping[str, Any]) -> RouteRead:
    """The route of an owner; problems name fields as in `price.meters[0].unit`.

    Unlike one of the config it can't refer to the environment or to files, but to secrets.
    """
    problems: list[Problem] = []
    return RouteRead(read_route(_section(document, problems), None), problems)


def merged(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A document after a merge patch (RFC 7396): what the patch says, null: not there any more."""
    result = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    return result


def _section(document: Mapping[str, Any], problems: list[Problem]) -> Section:
    return Section(_said(document), "", problems, numbered=True)


def _said(value: Any) -> Any:
    """A value without nulls, also in the tables of its lists."""
    if isinstance(value, dict):
        return {key: _said(one) for key, one in value.items() if one is not None}
    return [_said(one) for one in value] if isinstance(value, list) else value
