"""Packs, offers and Stripe's settings by the API; without Stripe, all but the payments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest_asyncio

from gateway.config.stripe import StripeTable
from gateway.ledger.rows import BY_CONFIG
from policies.catalog import Plan, PlanPrice, Platform
from tests.support.deployment import CREDIT
from tests.support.fake_stripe.face import FakeStripe
from tests.support.stripe_shop import Shop, client_of
from tests.support.stripe_stand import ask_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from tests.support.api import Api

PACKS, STRIPE = "/v1/packs", "/v1/stripe"
BIG = {"slug": "big", "name": "Big", "credits": "500", "validity_days": 90, "price": ["10.00 usd"]}
PRO = {"tollkeeper": "demo", "plan": "pro2", "credits": "1000"}


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    async with FakeStripe.running() as fake, client_of(fake) as client:
        yield Shop(fake, client)


async def set_up(api: Api, shop: Shop, **options: Any) -> None:
    owner = api.as_("owner")
    key = {"value": shop.fake.api_key}
    assert (await owner.put("/v1/secrets/stripe", key)).status == 200
    await owner.put("/v1/secrets/hook", {"value": shop.fake.webhook_secret})
    body = {
        "secret_key": "secret:stripe",
        "webhook_secrets": ["secret:hook"],
        **options,
    }
    done = await owner.put(STRIPE, body)
    assert done.status == 200, done.body
    await ask_at(api, shop.fake)


async def test_201_a_pack_has_the_keys_of_the_config_and_is_changed_by_a_patch(api: Api) -> None:
    editor = api.as_("editor")
    made = await editor.post(PACKS, BIG)
    assert made.status == 201, made.body
    assert {**made.body, "id": 1} == {**BIG, "id": 1, "managed_by": "api"}
    patched = await editor.patch(f"{PACKS}/big", {"credits": "600", "validity_days": None})
    assert (patched.status, patched.body["credits"]) == (200, "600")
    assert patched.body["validity_days"] is None
    assert (await api.as_key().get(PACKS)).body["data"] == [patched.body]
    assert (await editor.post(PACKS, BIG)).code == "name_taken"
    assert (await editor.delete(f"{PACKS}/big")).status == 204
    assert (await api.as_key().get(PACKS)).body["data"] == []
    assert (await editor.get(f"{PACKS}/big")).status == 404
    assert (await editor.post(PACKS, BIG)).status == 201


async def test_422_all_mistakes_of_a_pack_are_named(api: Api) -> None:
    answer = await api.as_("editor").post(PACKS, {"slug": "big", "credits": "0", "price": "10"})
    assert answer.status == 422
    assert set(answer.wrong) == {"credits", "price"}


async def test_409_what_the_config_describes_is_changed_there(api: Api) -> None:
    editor = api.as_("editor")
    await editor.post(PACKS, BIG)
    pack = (await api.ledger.pack(api.demo.platform_id, "big")).pack  # type: ignore[union-attr]
    await api.ledger.apply_catalog(Platform("demo", "Demo"), (), (), (pack,))
    for answer in (
        await editor.patch(f"{PACKS}/big", {"credits": "1"}),
        await editor.delete(f"{PACKS}/big"),
    ):
        assert (answer.status, answer.code) == (409, "managed_by_config")


async def test_409_without_stripe_it_says_what_to_set(api: Api) -> None:
    owner = api.as_("owner")
    for answer in (
        await owner.get(STRIPE),
        await owner.delete(STRIPE),
        await owner.get(f"{STRIPE}/products"),
        await owner.post(f"{STRIPE}/sync"),
        await owner.post(f"{STRIPE}/plan-push", {"dry_run": True}),
    ):
        assert (answer.status, answer.code) == (409, "stripe_not_set_up")
        assert '"demo" has no Stripe' in answer.body["detail"]
        assert "tollkeeper stripe set" in answer.body["detail"]


async def test_200_settings_name_secrets_and_never_show_them(api: Api, shop: Shop) -> None:
    await set_up(api, shop, dunning={"grace_days": "never"}, automatic_tax=True)
    found = await api.as_("viewer").get(STRIPE)
    assert found.status == 200
    assert (found.body["mode"], found.body["secret_key"]) == ("test", "secret:stripe")
    assert found.body["webhook_path"] == "/webhooks/stripe/demo"
    assert (found.body["problem"], found.body["automatic_tax"]) == (None, True)
    assert found.body["dunning"]["grace_days"] == "never"
    assert found.body["dunning"]["suspend_after_days"] == 14
    assert shop.fake.api_key not in str(found.body)
    assert (await api.as_("owner", api.other).get(STRIPE)).code == "stripe_not_set_up"
    log = await api.as_("owner").get("/v1/audit-log")
    assert "stripe_settings" in str(log.body)
    assert shop.fake.api_key not in str(log.body)


async def test_422_settings_whose_secrets_are_not_there_or_no_keys_are_refused(api: Api) -> None:
    owner = api.as_("owner")
    await owner.put("/v1/secrets/hook", {"value": "sk_test_canary"})
    body = {"secret_key": "secret:none", "webhook_secrets": ["secret:hook"]}
    answer = await owner.put(STRIPE, body)
    assert answer.status == 422
    assert set(answer.wrong) == {"secret_key", "webhook_secrets"}
    assert "canary" not in str(answer.body)
    answer = await owner.put(STRIPE, {"secret_key": "sk_live_canary", "bridge_minutes": -1})
    assert set(answer.wrong) == {"secret_key", "bridge_minutes"}
    assert "canary" not in str(answer.body)


async def test_409_a_secret_that_stripe_needs_is_not_deleted(api: Api, shop: Shop) -> None:
    await set_up(api, shop)
    owner = api.as_("owner")
    for name in ("stripe", "hook"):
        answer = await owner.delete(f"/v1/secrets/{name}")
        assert (answer.status, answer.code) == (409, "in_use")
        assert "the Stripe settings" in answer.body["detail"]
    assert (await owner.delete(STRIPE)).status == 204
    assert (await owner.delete("/v1/secrets/stripe")).status == 204


async def test_409_the_configs_stripe_is_changed_there_and_its_places_are_not_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E_CANARY", "sk_test_1")
    await api.ledger.save_stripe_settings(
        api.demo.platform_id, StripeTable("env:E_CANARY"), livemode=False, managed_by=BY_CONFIG
    )
    owner = api.as_("owner")
    found = await owner.get(STRIPE)
    assert (found.body["secret_key"], found.body["managed_by"]) == (None, "config")
    assert "E_CANARY" not in str(found.body)
    await owner.put("/v1/secrets/stripe", {"value": "sk_test_1"})
    for answer in (
        await owner.put(STRIPE, {"secret_key": "secret:stripe"}),
        await owner.delete(STRIPE),
    ):
        assert (answer.status, answer.code) == (409, "managed_by_config")


async def test_a_key_that_was_taken_away_is_told_and_nothing_is_asked(
    api: Api, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.stripe_sync.settings.KEPT_S", 0.0)
    monkeypatch.setenv("E_KEY", shop.fake.api_key)
    table = StripeTable("env:E_KEY")
    await api.ledger.save_stripe_settings(
        api.demo.platform_id, table, livemode=False, managed_by=BY_CONFIG
    )
    owner = api.as_("owner")
    assert (await owner.get(STRIPE)).body["problem"] is None
    monkeypatch.delenv("E_KEY")
    assert "not set" in (await owner.get(STRIPE)).body["problem"]
    answer = await owner.post(f"{STRIPE}/sync")
    assert (answer.status, answer.code) == (409, "stripe_not_set_up")
    buyer = await api.as_("member").post("/v1/subscribe", {"plan": "pro"})
    assert (buyer.status, buyer.code) == (409, "stripe_not_set_up")
    assert "E_KEY" not in str(buyer.body)
    assert (await owner.get("/v1/offers")).body["mode"] is None


async def test_200_the_catalogue_is_looked_at_and_shown_with_its_problems(
    api: Api, shop: Shop
) -> None:
    await set_up(api, shop)
    good = await shop.price(1900, "month", metadata=PRO)
    await shop.price(1900, "month", metadata={**PRO, "plan": "bad", "credits": "x"})
    await shop.price(500, "month", metadata={"tollkeeper": "demo", "plan": "pro", "credits": "7"})
    report = await api.as_("editor").post(f"{STRIPE}/sync")
    assert report.status == 200, report.body
    assert (report.body["products"], report.body["plans_changed"]) == (3, ["pro2"])
    assert [one["problem"][:16] for one in report.body["parked"]] == ["metadata credits"]
    listed = (await api.as_("viewer").get(f"{STRIPE}/products")).body["data"]
    by_slug = {one["slug"]: one for one in listed}
    assert by_slug["pro2"]["prices"] == [
        {
            "id": good,
            "active": True,
            "amount": "19.00",
            "currency": "usd",
            "months": 1,
            "problem": None,
        }
    ]
    assert by_slug["bad"]["problem"] is not None
    assert by_slug["pro"]["differs"] == "metadata say otherwise: credits"
    assert (by_slug["pro"]["problem"], by_slug["pro2"]["differs"]) == (None, None)
    pages, cursor = [], None
    while True:
        page = (await api.as_("viewer").get(f"{STRIPE}/products", limit=2, cursor=cursor)).body
        pages += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == listed

    plans = (await api.as_("viewer").get("/v1/plans/pro2")).body
    assert plans["managed_by"] == "stripe"
    refused = await api.as_("editor").patch("/v1/plans/pro2", {"credits": "1"})
    assert (refused.status, refused.code) == (409, "managed_by_stripe")
    assert (await api.as_("editor").delete("/v1/plans/pro2")).code == "in_use"


async def test_200_plan_push_says_what_it_does_and_takes_over_what_is_there(
    api: Api, shop: Shop
) -> None:
    await set_up(api, shop)
    editor = api.as_("editor")
    await editor.post(PACKS, BIG)
    shown = (await editor.post(f"{STRIPE}/plan-push", {"dry_run": True})).body
    assert [(one["action"], one["object"], one["slug"]) for one in shown["steps"]] == [
        ("create", "product", "big"),
        ("create", "price", "big"),
    ]
    assert all(one["id"] is None for one in shown["steps"])
    assert shop.fake.store.tables.get("product", {}) == {}
    done = (await editor.post(f"{STRIPE}/plan-push", {})).body
    assert [one["changes"] for one in done["steps"]] == [one["changes"] for one in shown["steps"]]
    (product,) = (await editor.get(f"{STRIPE}/products")).body["data"]
    assert product["id"] == done["steps"][0]["id"]
    assert (await editor.post(f"{STRIPE}/plan-push", {})).body["steps"] == []


async def test_200_offers_are_what_stripe_sells_now(api: Api, shop: Shop) -> None:
    await set_up(api, shop)
    await shop.price(1900, "month", metadata={**PRO, "trial_days": "7", "features": "Priority"})
    await shop.price(1900, "month", metadata={**PRO, "plan": "bad", "credits": "x"})
    pack = {"tollkeeper": "demo", "pack": "big", "credits": "500"}
    await shop.price(1000, metadata=pack, name="Big")
    await api.as_("editor").post(f"{STRIPE}/sync")
    found = (await api.as_key().get("/v1/offers")).body
    assert found["mode"] == "test"
    (plan,) = found["plans"]
    assert (plan["plan"], plan["credits"], plan["features"]) == ("pro2", "1000", ["Priority"])
    assert plan["prices"] == [{"amount": "19.00", "currency": "usd", "months": 1}]
    (offer,) = found["packs"]
    assert (offer["pack"], offer["name"], offer["credits"]) == ("big", "Big", "500")
    assert offer["prices"] == [{"amount": "10.00", "currency": "usd", "months": None}]


async def test_200_without_stripe_offers_are_what_the_platform_says_things_cost(api: Api) -> None:
    paid = Plan("paid", CREDIT, prices=(PlanPrice(12, "eur", 19_000),))
    await api.ledger.apply_catalog(Platform("demo", "Demo"), (paid,), ())
    await api.as_("editor").post(PACKS, BIG)
    found = (await api.as_("member").get("/v1/offers")).body
    assert found["mode"] is None
    assert [one["plan"] for one in found["plans"]] == ["paid"]
    assert found["plans"][0]["prices"] == [{"amount": "190.00", "currency": "eur", "months": 12}]
    assert [one["pack"] for one in found["packs"]] == ["big"]
    assert (await api.as_key(api.other).get("/v1/offers")).body == {
        "mode": None,
        "plans": [],
        "packs": [],
    }


async def test_201_an_account_made_without_a_plan_is_put_on_the_platforms(api: Api) -> None:
    operator = api.as_("operator")
    changed = await operator.patch(
        "/v1/platforms/other",
        {"signup_plan": "free", "trial_credits": "5", "trial_days": 7},
    )
    assert changed.status == 200, changed.body
    assert (changed.body["signup_plan"], changed.body["trial_credits"]) == ("free", "5")
    made = await api.as_("editor", api.other).post("/v1/accounts", {"name": "new"})
    assert (made.status, made.body["plan"]) == (201, "free")
    path = f"/v1/accounts/{made.body['id']}/grants"
    grants = (await api.as_("viewer", api.other).get(path)).body["data"]
    assert {(one["source"], one["granted_credits"]) for one in grants} == {
        ("plan", "100"),
        ("trial", "5"),
    }
    refused = await operator.patch("/v1/platforms/other", {"signup_plan": None})
    assert set(refused.wrong) == {"trial_credits"}
    await operator.patch("/v1/platforms/other", {"signup_plan": "gone"})
    answer = await api.as_("editor", api.other).post("/v1/accounts", {"name": "newer"})
    assert (answer.status, answer.code) == (409, "no_signup_plan")
