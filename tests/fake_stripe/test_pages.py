"""The fake's pages, as a person uses them, and their buttons, as a program does."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.fake_stripe.amounts import money, typed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.stripe_shop import Shop

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest_asyncio.fixture
async def visitor(shop: Shop) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(shop.fake.url) as session:
        yield session


async def read(visitor: aiohttp.ClientSession, path: str) -> str:
    async with visitor.get(path) as answer:
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        return await answer.text()


async def push(visitor: aiohttp.ClientSession, path: str, **values: Any) -> tuple[int, str, str]:
    """What a browser gets that sends a form: the status, where it is sent, and the page."""
    async with visitor.post(path, data=values, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location", ""), await answer.text()


async def ask(visitor: aiohttp.ClientSession, path: str, **values: Any) -> Any:
    async with visitor.post(path, json=values) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def seen_by_a_browser(url: str) -> str:
    assert BROWSER is not None
    child = await asyncio.create_subprocess_exec(
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        output, _ = await child.communicate()
    return output.decode()


async def test_a_payer_sees_what_is_sold_pays_and_comes_back(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    session = await shop.session(
        await shop.price(1500, "month"),
        2,
        mode="subscription",
        customer=await shop.customer(),
        cancel_url="https://shop.example/cart",
    )

    page = await read(visitor, f"/checkout/{session}")
    assert "2 x Plan" in page
    assert "$30.00 / month" in page
    assert 'href="https://shop.example/cart"' in page

    status, location, _ = await push(visitor, f"/_fake/checkout/{session}/pay", card="works")
    assert (status, location) == (303, f"https://shop.example/paid?session={session}")
    assert shop.fake.store.get("checkout.session", session)["status"] == "complete"
    assert "nothing to pay" in await read(visitor, f"/checkout/{session}")


async def test_a_payer_sees_what_it_costs_after_a_trial(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    session = await shop.session(
        await shop.price(19_000, "year"),
        mode="subscription",
        customer=await shop.customer(),
        subscription_data={"trial_period_days": 14},
    )

    page = await read(visitor, f"/checkout/{session}")
    assert "$190.00 / year" in page
    assert "14 days free, then the price above." in page
    assert "Due today: $0.00" in page


async def test_a_declined_payer_stays_on_the_page_and_is_told(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    session = await shop.session(await shop.price(), allow_promotion_codes=True)
    pay = f"/_fake/checkout/{session}/pay"

    status, _, page = await push(visitor, pay, card="fails", promotion_code="")
    assert status == 402
    assert "Your card was declined." in page
    status, _, page = await push(visitor, pay, card="works", promotion_code="NONE")
    assert status == 400
    assert "This code is invalid." in page
    assert (await push(visitor, pay, card="works", promotion_code=""))[0] == 303


async def test_a_customer_cancels_keeps_changes_the_card_and_pays(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    bought = await shop.subscribe(await shop.price(interval="month"), "fails at renewal")
    made = await shop.v1.billing_portal.sessions.create_async(
        {"customer": bought["customer"], "return_url": "https://shop.example/me"}
    )
    here, subscription = f"/_fake/portal/{made.id}", bought["subscription"]
    page = await read(visitor, f"/portal/{made.id}")
    assert "1 x Plan, $10.00 / month" in page
    assert 'href="https://shop.example/me"' in page

    await push(visitor, f"{here}/cancel", subscription=subscription)
    assert "active, ends then" in await read(visitor, f"/portal/{made.id}")
    await push(visitor, f"{here}/keep", subscription=subscription)
    assert "ends then" not in await read(visitor, f"/portal/{made.id}")

    await shop.fake.advance(days=31, hours=2)
    owed = shop.fake.store.get("subscription", subscription)["latest_invoice"]
    assert (await push(visitor, f"{here}/card", card="fails"))[0] == 402
    assert (await push(visitor, f"{here}/card", card="works"))[0] == 303
    assert (await push(visitor, f"{here}/pay", invoice=owed))[0] == 303
    assert shop.fake.store.get("subscription", subscription)["status"] == "active"


async def test_the_portal_cancels_at_once_where_it_is_set_up_so(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    bought = await shop.subscribe(await shop.price(interval="month"))
    configuration = await shop.v1.billing_portal.configurations.create_async(
        {"features": {"subscription_cancel": {"enabled": True, "mode": "immediately"}}}
    )
    made = await shop.v1.billing_portal.sessions.create_async(
        {"customer": bought["customer"], "configuration": configuration.id}
    )

    await push(visitor, f"/_fake/portal/{made.id}/cancel", subscription=bought["subscription"])

    subscription = shop.fake.store.get("subscription", bought["subscription"])
    assert subscription["status"] == "canceled"


async def test_a_customer_can_not_touch_what_is_anothers(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    bought = await shop.subscribe(await shop.price(interval="month"))
    stranger = await shop.v1.billing_portal.sessions.create_async(
        {"customer": await shop.customer()}
    )

    for what in ("cancel", "keep"):
        status, _, _ = await push(
            visitor, f"/_fake/portal/{stranger.id}/{what}", subscription=bought["subscription"]
        )
        assert status == 404
    path = f"/_fake/portal/{stranger.id}/pay"
    assert (await push(visitor, path, invoice=bought["invoice"]))[0] == 404


async def test_programs_move_the_clock_change_cards_dispute_and_decide(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    session = await shop.buy(await shop.price(1000))
    charge, now_s = await shop.charge_of(session), shop.fake.clock.now_s

    moved = await ask(visitor, "/_fake/advance", days=31, hours=2, seconds=5)
    assert moved == {"now_s": now_s + 31 * 86_400 + 2 * 3600 + 5}
    assert await ask(visitor, "/_fake/advance", to=moved["now_s"] + 7) == {
        "now_s": moved["now_s"] + 7
    }
    card = await ask(visitor, f"/_fake/customers/{session['customer']}/card", card="async")
    assert card["type"] == "us_bank_account"
    dispute = await ask(visitor, f"/_fake/charges/{charge}/dispute", amount=400)
    assert dispute["amount"] == 400
    closed = await ask(visitor, f"/_fake/disputes/{dispute['id']}/close", ending="lost")
    assert closed["status"] == "lost"


async def test_the_first_page_pays_back_and_disputes_what_was_paid(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    session = await shop.buy(await shop.price(1000))
    charge = await shop.charge_of(session)
    refund, dispute = (f"/_fake/charges/{charge}/{what}" for what in ("refund", "dispute"))
    page = await read(visitor, "/")
    assert {refund, dispute} <= set(re.findall(r'formaction="([^"]+)"', page))

    assert (await push(visitor, refund, money="2.50"))[:2] == (303, "/")
    status, _, page = await push(visitor, refund, money="7.51")
    assert status == 400
    assert "greater than unrefunded amount" in page
    assert "+ 1 month" in page  # it is told on the page with the button
    for wrong in ("2.505", "-1", "all"):
        status, _, page = await push(visitor, refund, money=wrong)
        assert (status, "write it as in 10.00" in page) == (400, True)
    assert "$2.50" in await read(visitor, "/")

    await push(visitor, dispute, money="")
    page = await read(visitor, "/")
    assert "$7.50, needs response" in page
    assert "formaction" not in page  # what is disputed can be neither paid back nor disputed again
    (close,) = set(re.findall(r"/_fake/disputes/\w+/close", page))
    await push(visitor, close, ending="won")
    assert "$7.50, won" in await read(visitor, "/")
    assert shop.happened("refund.", "charge.dispute.closed") == [
        "refund.created",
        "charge.dispute.closed",
    ]


async def test_programs_pay_back_in_minor_units_or_all_that_is_left(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))
    path = f"/_fake/charges/{charge}/refund"

    assert (await ask(visitor, path, amount=300))["amount"] == 300
    assert (await ask(visitor, path))["amount"] == 700
    async with visitor.post(path, json={}) as answer:
        assert (await answer.json())["error"]["code"] == "charge_already_refunded"


async def test_an_inquiry_can_be_closed_and_its_payment_paid_back_meanwhile(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    charge = await shop.charge_of(await shop.buy(await shop.price(1000)))
    shop.fake.dispute(charge, inquiry=True)

    page = await read(visitor, "/")
    assert f'formaction="/_fake/charges/{charge}/refund"' in page
    assert "Close the inquiry" in page
    assert ">Win<" not in page


@pytest.mark.parametrize(
    ("currency", "text", "minor", "shown"),
    [("usd", "12", 1200, "$12.00"), ("jpy", "12", 12, "12 JPY"), ("kwd", "1.5", 1500, "1.500 KWD")],
)
def test_what_is_typed_is_of_the_currency(currency: str, text: str, minor: int, shown: str) -> None:
    assert typed(text, currency) == minor
    assert money(minor, currency) == shown


@pytest.mark.parametrize(
    ("path", "values", "status"),
    [
        ("/_fake/charges/ch_none/refund", {}, 404),
        ("/_fake/advance", {"days": "soon"}, 400),
        ("/_fake/checkout/cs_none/pay", {}, 404),
        ("/_fake/customers/cus_none/card", {}, 404),
        ("/_fake/portal/bps_none/keep", {"subscription": "sub_none"}, 404),
        ("/_fake/deliveries/dlv_none/send", {}, 404),
    ],
)
@pytest.mark.parametrize("program", [True, False])
async def test_what_can_not_be_done_is_refused(
    visitor: aiohttp.ClientSession, path: str, values: dict[str, str], status: int, *, program: bool
) -> None:
    sent = {"json": values} if program else {"data": values}
    async with visitor.post(path, allow_redirects=False, **sent) as answer:
        assert answer.status == status


async def test_a_program_that_names_no_known_card_is_told_which_there_are(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    session = await shop.session(await shop.price())
    path = f"/_fake/checkout/{session}/pay"

    async with visitor.post(path, json={"card": "gold"}) as answer:
        assert answer.status == 400
        assert "fails at renewal" in (await answer.json())["error"]["message"]
    async with visitor.post(path, data="[]", headers={"Content-Type": "application/json"}) as bad:
        assert bad.status == 400


async def test_the_first_page_shows_customers_events_and_their_deliveries(
    shop: Shop, visitor: aiohttp.ClientSession
) -> None:
    shop.fake.add_endpoint("http://127.0.0.1:9/nobody", types=["invoice.paid"])
    price = await shop.price(interval="month")
    bought = await shop.subscribe(price)
    waiting = await shop.session(price, 3, mode="subscription")
    await shop.fake.delivered()

    page = await read(visitor, "/")

    assert f'<a href="/checkout/{waiting}">3 x Plan</a>' in page
    assert f'"/checkout/{bought["id"]}"' not in page

    assert "pat@example.com" in page
    assert "Card that ends in 4242" in page
    assert "failed (no answer)" in page
    assert "Only this clock moves" in page
    assert "--until" in page
    assert bought["id"] in page
    (again,) = set(re.findall(r"/_fake/deliveries/\w+/send", page))
    assert (await ask(visitor, again))["answers"] == [0, 0]


async def test_texts_of_others_are_no_markup(shop: Shop, visitor: aiohttp.ClientSession) -> None:
    canary = '<script>"canary"</script>'
    customer = await shop.customer(email=canary)
    made = await shop.v1.products.create_async(
        {"name": canary, "default_price_data": {"currency": "usd", "unit_amount": 100}}
    )
    session = await shop.session(made.default_price, customer_email=canary)
    portal = await shop.v1.billing_portal.sessions.create_async({"customer": customer})

    for path in ("/", f"/checkout/{session}", f"/portal/{portal.id}"):
        page = await read(visitor, path)
        assert "<script" not in page
        assert "&lt;script&gt;" in page


async def test_pages_of_nothing_are_not_found(visitor: aiohttp.ClientSession) -> None:
    for path in ("/checkout/cs_none", "/portal/bps_none", "/nowhere"):
        async with visitor.get(path) as answer:
            assert answer.status == 404


@pytest.mark.skipif(BROWSER is None, reason="no browser on the PATH")
async def test_a_browser_shows_each_page_with_its_forms(shop: Shop) -> None:
    bought = await shop.subscribe(await shop.price(1500, "month"))
    session = await shop.session(await shop.price(700), allow_promotion_codes=True)
    portal = await shop.v1.billing_portal.sessions.create_async({"customer": bought["customer"]})

    checkout = await seen_by_a_browser(f"{shop.fake.url}/checkout/{session}")
    mine = await seen_by_a_browser(f"{shop.fake.url}/portal/{portal.id}")
    first = await seen_by_a_browser(f"{shop.fake.url}/")

    assert "$7.00" in checkout
    assert checkout.count('type="radio"') == 6
    assert 'name="promotion_code"' in checkout
    assert "Cancel at the period's end" in mine
    assert {"+ 1 hour", "+ 1 day", "+ 1 month"} <= set(re.findall(r">(\+ 1 \w+)<", first))
