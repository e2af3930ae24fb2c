"""Secrets of owners get into the headers of their routes, and a route without one is left out."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from gateway.config import ConfigError
from gateway.identity.master_key import new_master_key
from gateway.identity.seal import Sealer
from gateway.ledger import Ledger, PlatformRoutes, PlatformRow
from gateway.proxy.offers import PlatformOffers, build_offers
from gateway.proxy.traffic import RouteTraffic
from gateway.upstream import Networks
from policies.catalog import Platform, Route
from tests.support.gateway import chat_route

SEALER = Sealer([new_master_key()])
DEMO, OTHER = PlatformRow(1, "demo", "Demo", None), PlatformRow(2, "other", "Other", None)
SECRET = {"openai": SEALER.seal(b"Bearer canary")}


def owned(name: str, header: str) -> Route:
    """A route that an owner made."""
    return Route(
        name=name,
        methods=("POST",),
        pattern=f"/{name}",
        price=None,
        upstream="http://a:1",
        headers=(("Authorization", header), ("X-Team", "blue")),
        guarded=True,
    )


def offers_of(*platforms: PlatformRoutes, sealer: Sealer = SEALER) -> dict[int, PlatformOffers]:
    return build_offers(platforms, lambda _: RouteTraffic(), Networks(), sealer)


def served(offers: PlatformOffers, name: str) -> bytes | None:
    """What a route's agent is shown; None: the route is not offered."""
    offer = offers.find("POST", f"/{name}")
    return None if offer is None else offer.injected


def test_a_secret_is_opened_into_the_header_that_refers_to_it() -> None:
    offers = offers_of(PlatformRoutes(DEMO, (owned("chat", "secret:openai"),), SECRET))
    assert served(offers[1], "chat") == b"Authorization: Bearer canary\r\nX-Team: blue\r\n"


@pytest.mark.parametrize(
    ("secrets", "sealer"),
    [
        ({}, SEALER),
        ({"openai": b"damaged"}, SEALER),
        (SECRET, Sealer([new_master_key()])),
        (SECRET, Sealer(())),
    ],
    ids=["missing", "damaged", "another master key", "no master key"],
)
def test_a_route_whose_secret_cannot_be_opened_is_left_out_and_nothing_else_is(
    secrets: dict[str, bytes], sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = owned("broken", "secret:openai"), owned("good", "plain")
    offers = offers_of(
        PlatformRoutes(DEMO, (broken, good), secrets),
        PlatformRoutes(OTHER, (good,)),
        sealer=sealer,
    )
    assert served(offers[1], "broken") is None
    assert served(offers[1], "good") == served(offers[2], "good")
    assert served(offers[1], "good") is not None
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "demo: the route broken" in error.getMessage()
    assert "canary" not in caplog.text


def test_the_secrets_of_another_platform_are_out_of_reach() -> None:
    offers = offers_of(
        PlatformRoutes(DEMO, (), SECRET), PlatformRoutes(OTHER, (owned("chat", "secret:openai"),))
    )
    assert served(offers[2], "chat") is None


def test_an_owners_header_never_reads_what_the_operator_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOLLKEEPER_TEST_CANARY", "canary")
    offers = offers_of(PlatformRoutes(DEMO, (owned("chat", "env:TOLLKEEPER_TEST_CANARY"),)))
    assert served(offers[1], "chat") == (
        b"Authorization: env:TOLLKEEPER_TEST_CANARY\r\nX-Team: blue\r\n"
    )


def test_a_route_of_the_config_that_cannot_be_offered_is_not_passed_over() -> None:
    route = chat_route("http://a:1", headers=(("Authorization", "env:TOLLKEEPER_TEST_UNSET"),))
    with pytest.raises(ConfigError, match="not set"):
        offers_of(PlatformRoutes(DEMO, (route,)))


async def test_workers_get_secrets_with_the_routes_and_the_configs_routes_win(
    postgres_url: str,
) -> None:
    async with Ledger(postgres_url) as ledger:
        config = chat_route("http://config:1")
        report = await ledger.apply_catalog(Platform("demo"), [], [])
        own = replace(owned("own", "secret:openai"), pattern=config.pattern)
        await ledger.set_secret(report.platform_id, "openai", SECRET["openai"])
        await ledger.save_route(report.platform_id, "demo", own, new=True)
        await ledger.apply_catalog(Platform("demo"), [], [config])
        (demo,) = (await ledger.snapshot_catalogue()).platforms
    assert demo.secrets == SECRET
    offer = offers_of(demo)[report.platform_id].find("POST", config.pattern)
    assert offer is not None
    assert offer.route.name == config.name
