"""Plans and routes as single documents: read by the config's own code, written as it is read."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load_config
from gateway.config.documents import merged, read_plan_document, read_route_document
from gateway.config.writing import plan_document, route_document

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "config.toml", *sorted(ROOT.glob("examples/*/config.toml"))]
METER = {
    "unit": "token",
    "from": ["response.json:/usage/total_tokens", "response.header:X-Units"],
    "credits_per_unit": "0.000000000015",
    "reserve_units": 4000,
}
TIERED = {
    **METER,
    "unit": "image",
    "credits_per_unit": None,
    "tiers": [{"up_to": 10, "credits_per_unit": "1"}, {"credits_per_unit": "0.5"}],
    "included_units": 3,
    "reserve_from": ["request.json:/n"],
    "on_missing": "estimate",
    "estimate_from": "response.sse.count",
    "estimate_per_unit": 7,
}
ROUTE: dict[str, Any] = {
    "name": "chat",
    "match": "POST|PUT /v1/{model}/chat",
    "upstream": "https://agents.example/base",
    "price": {"per_request": "0.1"},
}
PLAN: dict[str, Any] = {"slug": "pro"}
ROUTES: dict[str, dict[str, Any]] = {
    "least": {},
    "free": {"free": True, "price": None},
    "bounds": {
        "timeout_s": 1.5,
        "idle_timeout_s": 0.001,
        "connections_max": 1,
        "limits": {"requests_per_second": 5, "burst": 9, "concurrency": 1},
        "caps": {"day": "1.5", "month": "2"},
        "when_redis_is_down": {"allow": "5"},
        "headers": {"X-Team": "blue", "Authorization": "secret:openai"},
        "on": {"completed": "reserved", "unknown": "nothing"},
        "ensure_usage": "openai",
    },
    "meters": {"price": {"meters": [METER, TIERED], "maximum": "90"}},
    "presets": {
        "price": {"meters": [{**METER, "from": "openai.input_tokens", "unit": "in"}, METER]}
    },
    "outcome": {
        "price": {
            "per_request": "1",
            "outcome": {
                "from": "response.json:/status=delivered",
                "credits": "0.5",
                "on_missing": "reserved",
            },
        }
    },
    "a meter called outcome": {"price": {"meters": [{**METER, "unit": "outcome"}]}},
    "table": {
        "price": {
            "per_request": "1",
            "maximum": "100",
            "meters": [METER, TIERED],
            "table": {
                "by": "path:model",
                "listed_only": True,
                "cases": {
                    "large": {"per_request": "2", "credits_per_unit": {"image": "3"}},
                    "": {"minimum": "1", "maximum": "7", "reserve_units": {"token": 8}},
                    "same": {},
                },
            },
        }
    },
    "mcp": {
        "protocol": "mcp",
        "errors": "problem",
        "price": {
            "jsonrpc": {
                "default_tool_credits": "1",
                "tool_error": "actual",
                "tools": {"search": "0.5"},
                "methods": {"resources/read": "0.25"},
            }
        },
    },
    "task": {"protocol": "a2a", "a2a": {"charge": "task", "task_lease_s": 60}},
    "message": {"protocol": "a2a", "a2a": {"charge": "message"}},
    "websocket": {
        "match": "GET /socket",
        "protocol": "websocket",
        "websocket": {"message_max_bytes": 5, "check_s": 0.5},
    },
}
PLANS: dict[str, dict[str, Any]] = {
    "least": {},
    "limits": {"credits": "5", "requests_per_minute": 6, "burst": 7, "concurrency": 8},
    "quota": {"requests_per_month": 9, "quota_window": "billing"},
    "overage": {"overage": "bill", "overage_cap": "0.5", "caps": {"day": "1", "session": "2"}},
    "rollover of all": {"credits": "1", "rollover": "all", "rollover_periods": 3},
    "rollover": {"credits": "1", "rollover": "0.25", "discount": "12.5", "low_credits": "3"},
    "refunds": {"refund_expired": "nothing"},
}


@pytest.mark.parametrize("changes", ROUTES.values(), ids=ROUTES)
def test_a_written_route_reads_back_as_the_same(changes: dict[str, Any]) -> None:
    route, problems = read_route_document(merged(ROUTE, changes))
    assert problems == []
    written = route_document(route)
    json.dumps(written)
    assert read_route_document(written) == (route, [])
    assert route_document(read_route_document(written).route) == written


@pytest.mark.parametrize("changes", PLANS.values(), ids=PLANS)
def test_a_written_plan_reads_back_as_the_same(changes: dict[str, Any]) -> None:
    plan, problems = read_plan_document(merged(PLAN, changes))
    assert problems == []
    assert read_plan_document(plan_document(plan)) == (plan, [])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.parent.name)
def test_every_plan_and_route_of_the_examples_can_be_written(path: Path) -> None:
    config = load_config(path)
    for route in config.routes:
        plain = replace(route, headers=())  # they may refer to the environment
        assert read_route_document(route_document(plain)) == (plain, [])
    for plan in config.plans:
        assert read_plan_document(plan_document(plan)) == (plan, [])


def test_a_document_is_read_as_the_config_is(tmp_path: Path) -> None:
    text = (ROOT / "config.toml").read_text()
    for document, route in zip(
        tomllib.loads(text)["routes"], load_config(ROOT / "config.toml").routes, strict=True
    ):
        assert read_route_document(document) == (route, [])


def test_all_mistakes_are_named_by_their_fields() -> None:
    document = {
        **ROUTE,
        "name": "No Slug",
        "upstream": 5,
        "prise": {},
        "price": {
            "minimum": 0.5,
            "meters": [METER, {**METER, "unit": "Bad", "reserve_units": -1, "tiers": []}],
        },
        "limits": {"burst": 3},
        "headers": {"Host": "x"},
    }
    fields = {problem.where for problem in read_route_document(document).problems}
    assert fields == {
        "name",
        "upstream",
        "prise",
        "price.minimum",
        "price.meters[1].unit",
        "price.meters[1].reserve_units",
        "price.meters[1].credits_per_unit",
        "price.meters[1].tiers",
        "limits.burst",
        "headers.Host",
    }


@pytest.mark.parametrize(
    ("changes", "field", "advice"),
    [
        ({"headers": {"X-A": "env:HOME"}}, "headers.X-A", "gateway's own machine"),
        ({"headers": {"X-A": "file:/etc/passwd"}}, "headers.X-A", "gateway's own machine"),
        ({"headers": {"Authorization": "x"}}, "headers.Authorization", "secret:NAME"),
        ({"headers": {"X-API-Key": "x"}}, "headers.X-API-Key", "secret:NAME"),
        ({"headers": {"cookie": "a=b"}}, "headers.cookie", "secret:NAME"),
        ({"headers": {"X-Other": "Bearer abc"}}, "headers.X-Other", "secret:NAME"),
        ({"headers": {"X-Other": "sk-abc"}}, "headers.X-Other", "secret:NAME"),
        ({"headers": {"X-Other": "secret:No Name"}}, "headers.X-Other", "up to 63"),
        ({"headers": {"X-Other": "secret:"}}, "headers.X-Other", "up to 63"),
        ({"tls_ca_file": "/etc/ssl/ca.pem"}, "tls_ca_file", "for its operator only"),
    ],
)
def test_an_owner_names_nothing_of_the_operators_and_shows_no_credential(
    changes: dict[str, Any], field: str, advice: str
) -> None:
    (problem,) = read_route_document(merged(ROUTE, changes)).problems
    assert problem.where == field
    assert advice in problem.message


def test_a_merge_patch_replaces_lists_and_takes_away_what_is_null() -> None:
    # The example of RFC 7396, section 3.
    document = {
        "title": "Goodbye!",
        "author": {"givenName": "John", "familyName": "Doe"},
        "tags": ["example", "sample"],
        "content": "This will be unchanged",
    }
    patch = {
        "title": "Hello!",
        "phoneNumber": "+01-123-456-7890",
        "author": {"familyName": None},
        "tags": ["example"],
    }
    assert merged(document, patch) == {
        "title": "Hello!",
        "author": {"givenName": "John"},
        "tags": ["example"],
        "content": "This will be unchanged",
        "phoneNumber": "+01-123-456-7890",
    }
    assert merged({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}
    assert document["tags"] == ["example", "sample"]
