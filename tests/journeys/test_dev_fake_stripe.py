"""A newcomer sells something within a minute, at a Stripe that is not one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest_asyncio

from tests.support import dev as support
from tests.support.dev import edit, output_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.dev import Dev

PRO = 10_000


@pytest_asyncio.fixture
async def dev(config_file: Path, tmp_path: Path) -> AsyncIterator[Dev]:
    started = await support.start(config_file, tmp_path / "d", "--fake-stripe")
    yield started
    await started.stop()


async def ask(dev: Dev, method: str, url: str, body: object = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {dev.ready['api_key']}", "Accept": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def subscription(dev: Dev) -> dict[str, Any]:
    _, answer = await ask(dev, "GET", dev.ready["control_url"] + "/v1/me/subscription")
    return dict(answer)


async def left(dev: Dev) -> float:
    """What the demo account has besides the credits it began with."""
    _, answer = await ask(dev, "GET", dev.ready["control_url"] + "/v1/me/balance")
    return float(answer["available_credits"]) - 1_000


async def test_a_subscription_its_renewal_and_a_failed_card_are_tried_without_an_account(
    dev: Dev,
) -> None:
    stripe = dev.ready["fake_stripe_url"]
    control = dev.ready["control_url"]

    status, page = await ask(dev, "POST", f"{control}/v1/subscribe", {"plan": "pro"})
    assert status == 200
    assert page["url"].startswith(stripe)
    pay = f"{stripe}/_fake/checkout/{page['session_id']}/pay"
    await ask(dev, "POST", pay, {"card": "fails at renewal"})
    await eventually(lambda: _is(dev, plan="pro", status="active"))
    await eventually(lambda: _has(dev, PRO))

    # The card fails at the renewal: no credits, and the plan stays while there is grace.
    await ask(dev, "POST", f"{stripe}/_fake/advance", {"days": 32})
    await eventually(lambda: _is(dev, plan="pro", status="past_due"))
    assert await left(dev) == PRO

    # Another card, and Stripe tries again.
    card = f"{stripe}/_fake/customers/{await _customer(stripe)}/card"
    await ask(dev, "POST", card, {"card": "works"})
    await ask(dev, "POST", f"{stripe}/_fake/advance", {"days": 4})
    await eventually(lambda: _is(dev, plan="pro", status="active"))
    await eventually(lambda: _has(dev, 2 * PRO))


async def test_the_fake_stays_when_the_config_is_applied_meanwhile(
    dev: Dev, config_file: Path, tmp_path: Path
) -> None:
    apply = ("apply", "--json", "--config", str(config_file))
    folder = ("--data-dir", str(tmp_path / "elsewhere" / ".." / "d"))
    (tmp_path / "elsewhere").mkdir()
    edit(config_file, 'credits = "10000"', 'credits = "20000"')

    applied = json.loads(await output_of(*apply, *folder))

    assert applied["plans_changed"] == ["pro"]
    assert applied["stripe_changed"] == []
    status, page = await ask(
        dev, "POST", f"{dev.ready['control_url']}/v1/subscribe", {"plan": "pro"}
    )
    assert (status, page["url"].startswith(dev.ready["fake_stripe_url"])) == (200, True)

    # It is the fake of one platform: no other gets it.
    edit(config_file, 'slug = "demo"', 'slug = "another"')
    foretold = json.loads(await output_of(*apply, "--dry-run", *folder))
    assert foretold["stripe_changed"] == []


async def test_what_was_bought_is_there_after_a_restart(
    dev: Dev, config_file: Path, tmp_path: Path
) -> None:
    control, stripe = dev.ready["control_url"], dev.ready["fake_stripe_url"]
    _, page = await ask(dev, "POST", f"{control}/v1/me/packs", {"pack": "big"})
    await ask(dev, "POST", f"{stripe}/_fake/checkout/{page['session_id']}/pay", {"card": "works"})
    await eventually(lambda: _has(dev, 500))
    assert await dev.stop() == 0

    again = await support.start(config_file, tmp_path / "d", "--fake-stripe")
    try:
        assert await left(again) == 500
        _, page = await ask(
            again, "POST", f"{again.ready['control_url']}/v1/subscribe", {"plan": "pro"}
        )
        assert page["url"].startswith(again.ready["fake_stripe_url"])
    finally:
        await again.stop()

    plain = await support.start(config_file, tmp_path / "d")
    try:
        assert "fake_stripe_url" not in plain.ready
        status, problem = await ask(
            plain, "POST", f"{plain.ready['control_url']}/v1/subscribe", {"plan": "pro"}
        )
        assert (status, problem["code"]) == (409, "stripe_not_set_up")
        assert await left(plain) == 500
    finally:
        await plain.stop()


async def _is(dev: Dev, **expected: str) -> bool:
    found = await subscription(dev)
    return {name: found[name] for name in expected} == expected


async def _has(dev: Dev, amount: int) -> bool:
    return await left(dev) == amount


async def _customer(stripe: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{stripe}/v1/customers", headers={"Authorization": "Bearer sk_test_FakeTollkeeper"}
        ) as answer,
    ):
        return str((await answer.json())["data"][0]["id"])
