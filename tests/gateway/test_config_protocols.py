"""What a route's clients speak, and a plan's discount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, ConfigError, load_config
from policies.catalog import ChargePer, ErrorStyle, Protocol, TaskRule, WebSocketRule

if TYPE_CHECKING:
    from pathlib import Path

PRICE = '[routes.price]\nper_request = "1"\n'


def load(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text)
    return load_config(file)


def route(changes: str = "", tables: str = "") -> str:
    return (
        '[[routes]]\nname = "chat"\nmatch = "* /chat"\nupstream = "http://a:1"\n'
        f"{changes}\n{PRICE}{tables}\n"
    )


@pytest.mark.parametrize(
    ("protocol", "style"),
    [
        (Protocol.HTTP, ErrorStyle.PROBLEM),
        (Protocol.MCP, ErrorStyle.JSONRPC),
        (Protocol.A2A, ErrorStyle.JSONRPC),
        (Protocol.WEBSOCKET, ErrorStyle.PROBLEM),
    ],
)
def test_a_protocol_brings_its_own_errors_unless_a_route_says_others(
    tmp_path: Path, protocol: Protocol, style: ErrorStyle
) -> None:
    (found,) = load(tmp_path, route(f'protocol = "{protocol}"')).routes
    assert (found.protocol, found.errors) == (protocol, style)
    (said,) = load(tmp_path, route(f'protocol = "{protocol}"\nerrors = "anthropic"')).routes
    assert said.errors is ErrorStyle.ANTHROPIC


def test_without_a_word_a_route_is_plain_http(tmp_path: Path) -> None:
    (found,) = load(tmp_path, route()).routes
    assert (found.protocol, found.errors) == (Protocol.HTTP, ErrorStyle.PROBLEM)
    assert (found.ensure_usage, found.task, found.websocket) == ("", TaskRule(), WebSocketRule())


def test_each_protocol_has_its_table(tmp_path: Path) -> None:
    (task,) = load(tmp_path, route('protocol = "a2a"', "[routes.a2a]\ntask_lease_s = 60")).routes
    assert task.task == TaskRule(ChargePer.TASK, 60_000)
    message = route('protocol = "a2a"', '[routes.a2a]\ncharge = "message"')
    assert load(tmp_path, message).routes[0].task.per is ChargePer.MESSAGE
    table = "[routes.websocket]\nmessage_max_bytes = 9\ncheck_s = 0.5"
    (socket,) = load(tmp_path, route('protocol = "websocket"', table)).routes
    assert socket.websocket == WebSocketRule(9, 500)
    (usage,) = load(tmp_path, route('ensure_usage = "openai"')).routes
    assert usage.ensure_usage == "openai"


@pytest.mark.parametrize(
    ("changes", "tables", "where", "message"),
    [
        ('protocol = "soap"', "", "protocol", "there is http, mcp, a2a, websocket"),
        ('ensure_usage = "google"', "", "ensure_usage", "there is openai"),
        ('protocol = "mcp"\nensure_usage = "openai"', "", "ensure_usage", 'protocol = "http"'),
        ("", "[routes.a2a]", "a2a", 'without protocol = "a2a"'),
        ('protocol = "a2a"', "[routes.websocket]", "websocket", 'protocol = "websocket"'),
        ('protocol = "a2a"', "[routes.a2a]\ntask_lease_s = 0", "a2a.task_lease_s", "from 1"),
        (
            'protocol = "a2a"',
            '[routes.a2a]\ncharge = "message"\ntask_lease_s = 5',
            "a2a.task_lease_s",
            'without charge = "task"',
        ),
        ('protocol = "a2a"', '[routes.a2a]\ncharge = "day"', "a2a.charge", "message, task"),
        (
            'protocol = "websocket"',
            "[routes.websocket]\nmessage_max_bytes = 0",
            "websocket.message_max_bytes",
            "from 1",
        ),
        (
            'protocol = "websocket"',
            "[routes.price.jsonrpc]",
            "price.jsonrpc",
            "its messages are not read",
        ),
    ],
)
def test_what_no_protocol_can_use_is_refused(
    tmp_path: Path, changes: str, tables: str, where: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, route(changes, tables))
    ((found, why),) = caught.value.problems
    assert found == f"routes[chat].{where}"
    assert message in why


@pytest.mark.parametrize(("written", "basis_points"), [("15", 1_500), ("0.01", 1), ("100", 10_000)])
def test_a_plans_discount_is_in_percent(tmp_path: Path, written: str, basis_points: int) -> None:
    (plan,) = load(tmp_path, f'[[plans]]\nslug = "p"\ndiscount = "{written}"').plans
    assert plan.discount_basis_points == basis_points
    assert load(tmp_path, '[[plans]]\nslug = "p"').plans[0].discount_basis_points == 0


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('"100.01"', "more than all"),
        ('"0.001"', "percentage"),
        ('"-1"', "percentage"),
        ("15", '"15"'),
    ],
)
def test_a_discount_that_is_none_is_refused(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"plans\[p\].discount") as caught:
        load(tmp_path, f'[[plans]]\nslug = "p"\ndiscount = {written}')
    assert message in str(caught.value)
