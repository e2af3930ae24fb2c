"""What was done is there after a restart: the fake's file, and its command line."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.fake_stripe.clock import DAY_S
from tests.support.fake_stripe.face import FakeStripe
from tests.support.fake_stripe.state import StateFile, restore, snapshot
from tests.support.stripe_shop import Shop, client_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def kept_in(path: Path) -> AsyncIterator[Shop]:
    """A shop at a fake that keeps its state in a file."""
    fake = FakeStripe()
    file = StateFile(fake, path)
    file.load()
    fake.api.changed.append(file.save)
    async with fake.serving("127.0.0.1", 0), client_of(fake) as client:
        yield Shop(fake, client)


async def test_a_subscription_survives_a_restart_and_renews_after_it(tmp_path: Path) -> None:
    path = tmp_path / "stripe.json"
    async with kept_in(path) as before:
        bought = await before.subscribe(await before.price(interval="month"))
        await before.fake.advance(days=3)
        now_s = before.fake.clock.now_s

    async with kept_in(path) as after:
        assert after.fake.clock.now_s >= now_s
        await after.fake.advance(days=29, hours=2)
        invoices = await after.v1.invoices.list_async({"subscription": bought["subscription"]})
        assert [one.status for one in invoices.data] == ["paid", "paid"]
        ids = [event["id"] for event in after.fake.events()]
        assert len(ids) == len(set(ids))


async def test_what_was_answered_is_in_the_file_by_then(tmp_path: Path) -> None:
    path = tmp_path / "stripe.json"
    async with kept_in(path) as shop:
        customer = await shop.customer()
        assert customer in path.read_text()
        await shop.fake.advance(days=1)
        assert json.loads(path.read_text())["now_s"] == shop.fake.clock.now_s


async def test_a_call_that_only_reads_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "stripe.json"
    async with kept_in(path) as shop:
        customer = await shop.customer()
        path.unlink()
        await shop.v1.customers.retrieve_async(customer)
        assert not path.exists()


async def test_all_of_it_comes_back_as_it_was() -> None:
    async with FakeStripe.running(seed="state") as fake, client_of(fake) as client:
        shop = Shop(fake, client)
        fake.add_endpoint("http://127.0.0.1:9/nobody", forms=["snapshot", "thin"])
        fake.set_delivery_mode("held")
        await shop.subscribe(await shop.price(interval="month"))
        saved = json.loads(json.dumps(snapshot(fake)))

    other = FakeStripe(now_s=0)
    restore(other, saved)

    assert json.loads(json.dumps(snapshot(other))) == saved
    assert len(other.deliveries.held) == 2 * len(other.events())


async def test_an_idempotency_key_is_still_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "stripe.json"
    made = []
    for _ in range(2):
        async with kept_in(path) as shop:
            made.append(
                await shop.v1.customers.create_async(
                    {"email": "a@b.c"}, {"idempotency_key": "once"}
                )
            )
    assert made[0].id == made[1].id


async def test_events_that_the_api_shows_no_more_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "stripe.json"
    async with kept_in(path) as shop:
        shop.fake.add_endpoint("http://127.0.0.1:9/nobody")
        await shop.customer()
        await shop.fake.advance(days=31)

    async with kept_in(path) as shop:
        assert shop.fake.events() == []
        assert shop.fake.deliveries.all == []


def test_a_file_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 99"):
        restore(FakeStripe(), {"version": 99})


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[dict[str, Any]]:
    """The fake as its command starts it; what it says when it is ready. Ends by SIGTERM."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.embedded.fake_stripe", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(30):
            yield json.loads(await child.stdout.readline())
    finally:
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await child.wait() == 0


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, list[web.Request]]]:
    """An endpoint that says yes to all, and what it was sent."""
    received: list[web.Request] = []

    async def take(request: web.Request) -> web.Response:
        await request.read()
        received.append(request)
        return web.Response()

    app = web.Application()
    app.router.add_post("/hooks", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hooks", received
    finally:
        await runner.cleanup()


async def test_the_command_serves_delivers_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    state = str(tmp_path / "stripe.json")
    async with receiver() as (url, received), aiohttp.ClientSession() as visitor:
        options = ("--webhook-url", url, "--webhook-secret", "whsec_x", "--state", state)
        async with started(*options) as ready:
            assert (ready["event"], ready["webhook_secret"]) == ("ready", "whsec_x")
            keyed = {"Authorization": f"Bearer {ready['api_key']}"}
            customers = f"{ready['url']}/v1/customers"
            async with visitor.post(customers, data={"email": "a@b.c"}, headers=keyed) as answer:
                customer = (await answer.json())["id"]
            await eventually(lambda: received)
            moved = {"json": {"days": 40}}
            async with visitor.post(f"{ready['url']}/_fake/advance", **moved) as answer:
                now_s = (await answer.json())["now_s"]

        async with started(*options) as ready:
            path = f"{ready['url']}/v1/customers/{customer}"
            async with visitor.get(path, headers=keyed) as answer:
                assert (await answer.json())["email"] == "a@b.c"
            async with visitor.post(f"{ready['url']}/_fake/advance", json={}) as answer:
                assert now_s <= (await answer.json())["now_s"] < now_s + DAY_S
