"""What a WebSocket's route may say, and its times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, ConfigError, load_config
from gateway.config.websockets import WEBSOCKET_SOURCES, WEBSOCKET_TIMEOUTS
from policies.catalog import Timeouts
from policies.meters import KINDS

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, changes: str = "", *, source: str = "", match: str = "GET /talk") -> Config:
    meter = (
        "[[routes.price.meters]]\n"
        f'unit = "u"\nfrom = "{source}"\ncredits_per_unit = "1"\nreserve_units = 1\n'
    )
    file = folder / "config.toml"
    file.write_text(
        f'[[routes]]\nname = "talk"\nmatch = "{match}"\nupstream = "http://a:1"\n{changes}\n'
        f'[routes.price]\nper_request = "1"\n{meter if source else ""}'
    )
    return load_config(file)


WEBSOCKET = 'protocol = "websocket"\n'


def test_a_conversation_may_last_longer_than_a_call(tmp_path: Path) -> None:
    (route,) = load(tmp_path, WEBSOCKET).routes
    assert route.timeouts == WEBSOCKET_TIMEOUTS
    assert WEBSOCKET_TIMEOUTS.total_ms > Timeouts().total_ms
    (said,) = load(tmp_path, WEBSOCKET + "timeout_s = 7\nidle_timeout_s = 3").routes
    assert (said.timeouts.total_ms, said.timeouts.idle_ms) == (7_000, 3_000)
    (http,) = load(tmp_path).routes
    assert http.timeouts == Timeouts()


@pytest.mark.parametrize(
    "source", ["websocket.messages", "websocket.messages:in", "duration:s", "response.bytes"]
)
def test_what_passes_can_be_counted(tmp_path: Path, source: str) -> None:
    (route,) = load(tmp_path, WEBSOCKET, source=source, match="*  /talk").routes
    assert route.price is not None
    assert str(route.price.meters[0].sources[0]) == source


def test_every_source_of_a_websocket_is_one() -> None:
    assert set(WEBSOCKET_SOURCES) <= set(KINDS)


@pytest.mark.parametrize(
    ("changes", "source", "match", "where", "message"),
    [
        (WEBSOCKET, "response.json:/n", "GET /talk", "price.meters", "has no response.json"),
        (WEBSOCKET, "request.json:/n", "GET /talk", "price.meters", "has no request.json"),
        (WEBSOCKET, "", "POST|PUT /talk", "match", "opened by GET"),
        ("", "websocket.messages", "GET /talk", "price.meters", 'protocol = "websocket"'),
    ],
)
def test_what_can_not_be_is_refused(
    tmp_path: Path, changes: str, source: str, match: str, where: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, changes, source=source, match=match)
    ((found, why),) = caught.value.problems
    assert found == f"routes[talk].{where}"
    assert message in why
