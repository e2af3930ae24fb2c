"""A worker offers what has changed, also where it could not be read when it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.ledger import Ledger, LedgerUnavailable
from policies.catalog import Platform
from tests.support.gateway import open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import pytest

    from gateway.ledger.rows import CatalogueSnapshot

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_change_that_could_not_be_read_is_read_again_without_another_word(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        read, failures = Ledger.snapshot_catalogue, []

        async def away_once(self: Ledger) -> CatalogueSnapshot:
            if not failures:
                failures.append(1)
                raise LedgerUnavailable("away")
            return await read(self)

        monkeypatch.setattr(Ledger, "snapshot_catalogue", away_once)
        changed = open_route(agent.url, pattern="/other/**")
        await gateway.ledger.apply_catalog(Platform("demo"), [], [changed])

        async def offered() -> bool:
            return (await gateway.call("/other/x")).status == 200

        await eventually(offered)
        assert failures
