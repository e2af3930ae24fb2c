"""`tollkeeper stripe`, `packs` and `offers`: from two secrets to something that can be bought."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.control.api.roles import Role
from tests.support.fake_stripe.face import FakeStripe
from tests.support.stripe_stand import ask_at

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.api import Api
    from tests.support.remote_cli import Remote

PACK = '[[packs]]\nslug = "big"\ncredits = "500"\nprice = "10 usd"\n'


async def test_two_secrets_and_a_push_are_enough_to_sell(
    api: Api, remote: Remote, tmp_path: Path
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    file, choices = tmp_path / "big.toml", tmp_path / "choices.toml"
    file.write_text(PACK)
    async with FakeStripe.running() as fake:
        choices.write_text('[dunning]\ngrace_days = "never"\n')
        await remote("secrets", "set", "key", stdin=fake.api_key)
        await remote("secrets", "set", "hook", stdin=fake.webhook_secret)
        done = await remote(
            *("stripe", "set", "--key", "key", "--webhook-secret", "hook"),
            *("--file", str(choices)),
        )
        assert done.out.splitlines() == [
            "Stripe is set, in test mode.",
            "Its webhook endpoint is /webhooks/stripe/demo, at the address of this API.",
        ]
        await ask_at(api, fake)
        shown = await remote("stripe", "show")
        assert "mode: test\n" in shown.out
        assert "secret:key" in shown.out
        assert (await remote("stripe", "show", "--json")).document["stripe"]["dunning"][
            "grace_days"
        ] == "never"

        made = await remote("packs", "create", "--file", str(file))
        assert made.out == "Pack big is there.\n"
        assert "10.00 usd" in (await remote("packs", "list")).out
        assert "credits: 500" in (await remote("packs", "show", "big")).out
        shown = await remote("packs", "show", "big", "--json")
        file.write_text(json.dumps(shown.document))
        assert (await remote("packs", "update", "big", "--file", str(file))).code == 0

        dry = await remote("stripe", "plan-push", "--dry-run")
        assert dry.out.startswith("Would be done, in test mode:\n  create product of the pack big:")
        assert "create price of the pack big: amount = '10.00 usd'" in dry.out
        assert (await remote("stripe", "products")).out == (
            "Stripe has no product of this platform.\n"
        )
        pushed = await remote("stripe", "plan-push", "--json")
        assert len(pushed.document["push"]["steps"]) == 2
        assert (await remote("stripe", "plan-push")).out == (
            "Nothing to do: Stripe has all of it.\n"
        )
        listed = await remote("stripe", "products")
        assert "pack big" in listed.out
        assert "10.00 usd" in listed.out
        synced = await remote("stripe", "sync")
        assert synced.out == "1 products are known, in test mode.\n"
        assert "pack big" in (await remote("offers")).out
        assert "Nothing can be paid" not in (await remote("offers")).out

        assert (await remote("packs", "delete", "big")).out == "Pack big is not sold any more.\n"
        assert (await remote("stripe", "unset")).out == "The platform has no Stripe any more.\n"
        everything = shown.out + listed.out + pushed.out
        assert fake.api_key not in everything


async def test_keys_are_never_taken_from_a_file_of_choices(
    api: Api, remote: Remote, tmp_path: Path
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    file = tmp_path / "stripe.toml"
    for name, option, value in (
        ("secret_key", "--key", '"env:KEY"'),
        ("webhook_secrets", "--webhook-secret", '["env:HOOK"]'),
    ):
        file.write_text(f"[stripe]\n{name} = {value}\n")
        refused = await remote("stripe", "set", "--key", "key", "--file", str(file))
        assert (refused.code, f"{name} is told by {option}, " in refused.err) == (2, True)


async def test_without_stripe_a_line_says_what_to_set(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    for words in (["show"], ["sync"], ["plan-push", "--dry-run"], ["products"], ["unset"]):
        answer = await remote("stripe", *words)
        assert answer.code == 2
        assert 'the platform "demo" has no Stripe' in answer.err
        assert "tollkeeper stripe set" in answer.err
    offers = await remote("offers")
    assert offers.out.splitlines() == [
        "Nothing can be bought.",
        'Nothing can be paid here: the platform has no Stripe ("tollkeeper stripe set").',
    ]


async def test_what_is_parked_is_told(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    async with FakeStripe.running() as fake:
        await remote("secrets", "set", "key", stdin=fake.api_key)
        done = await remote("stripe", "set", "--key", "secret:key")
        await ask_at(api, fake)
        assert "Without a webhook secret no event is believed" in done.out
        fake.store.add(
            "product",
            "prod",
            {
                "active": True,
                "name": "Bad",
                "metadata": {"tollkeeper": "demo", "plan": "bad", "credits": "x"},
                "default_price": None,
            },
        )
        synced = await remote("stripe", "sync")
        assert "Parked is prod_" in synced.out
        assert "metadata credits" in synced.out
        assert "metadata credits" in (await remote("stripe", "products")).out
