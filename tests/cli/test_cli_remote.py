"""The same commands on a remote control plane, by everybody who may log in there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from policies.apikeys import RANDOM_CHARACTERS, compose_key, well_formed
from tests.support.api_calls import serving_calls
from tests.support.ports import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api
    from tests.support.api_calls import Proxy
    from tests.support.remote_cli import Remote


@pytest_asyncio.fixture
async def proxy(api: Api, clean_redis_url: str) -> AsyncIterator[Proxy]:
    """Where calls of the same deployment are served."""
    async with serving_calls(api, clean_redis_url) as proxy:
        yield proxy


async def called(api: Api, proxy: Proxy, calls: int) -> list[str]:
    """The ids of alice's calls, newest first, once they are in the books."""
    path = f"/v1/settlements?account_id={api.demo.account.account_id}"
    for _ in range(calls):
        assert await proxy.status(api.demo.key.text) == 200

    async def settled() -> list[str]:
        found = (await api.as_("owner").get(path)).body["data"]
        return [call["request_id"] for call in found] if len(found) == calls else []

    return await eventually(settled)


async def test_an_owners_day_on_another_machine(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens["owner"])
    made = await remote.json("accounts", "create", "bob", "--credits", "7", "--key")
    assert well_formed(made["key"]["secret"])
    assert (
        "Account carol is ready, with 100 credits."
        in (await remote("accounts", "create", "carol", "--plan", "free")).out
    )
    assert "is called robert now" in (await remote("accounts", "rename", "bob", "robert")).out
    changes = (("set-plan", "pro"), ("set-discount", "12.5"), ("suspend",), ("resume",))
    for word, *more in changes:
        answer = await remote("accounts", word, "robert", *more)
        assert (answer.code, answer.err) == (0, "")
    shown = await remote.json("accounts", "show", "robert")
    account, balance = shown["account"], shown["balance"]
    assert (account["plan"], account["discount_percent"], account["status"]) == (
        *("pro", "12.5"),
        "active",
    )
    assert balance["available_credits"] == "1007"
    rows = (await remote.json("accounts", "list", "--plan", "pro"))["accounts"]
    assert rows == [account]

    grant = (await remote.json("grants", "add", "robert", "5", "--expires", "9d"))["grant"]
    number = str(grant["id"])
    assert "Taken 2 credits" in (await remote("grants", "adjust", number, "--take", "2")).out
    assert "with 3 credits left in it" in (await remote("grants", "revoke", number)).out
    sources = [row["source"] for row in (await remote.json("grants", "list", "robert"))["grants"]]
    assert sources == ["manual", "plan", "manual"]
    assert "1000" in (await remote("plans", "list")).out
    assert (await remote.json("routes", "list"))["routes"] == []


async def test_keys_are_made_narrowed_and_ended_from_another_machine(
    api: Api, proxy: Proxy, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens["editor"])
    guards = ("--route", "any", "--address", "127.0.0.0/8", "--metadata", "team=red")
    made = (await remote.json("keys", "create", "alice", "--rps", "5", *guards))["key"]
    number, secret = str(made["id"]), made["secret"]
    assert [await proxy.status(secret, path) for path in ("/any/x", "/more/x")] == [200, 403]
    people = (await remote("keys", "list", "alice", "--status", "active")).out
    assert "5/s, only any, from 127.0.0.0/8" in " ".join(people.split())

    await remote.json("keys", "limit", number, "--all-routes", "--metadata", "stage=test")
    assert [await proxy.status(secret, path) for path in ("/any/x", "/more/x")] == [200, 200]
    changed = (await remote.json("keys", "limit", number, "--metadata", "team="))["key"]
    assert (changed["metadata"], changed["routes"]) == ({"stage": "test"}, [])
    await remote.json("keys", "limit", number, "--address", "10.0.0.0/8", "--expires", "2099-01-01")
    assert await proxy.status(secret) == 403
    changed = (await remote.json("keys", "limit", number, "--all-addresses"))["key"]
    assert changed["expires_at"] == "2099-01-01T00:00:00.000Z"
    changed = (await remote.json("keys", "limit", number, "--expires", "never", "--name", "b"))[
        "key"
    ]
    assert (changed["expires_at"], changed["name"]) == (None, "b")

    new = (await remote.json("keys", "rotate", made["prefix"], "--overlap", "1h"))["key"]
    assert [await proxy.status(key) for key in (secret, new["secret"])] == [200, 200]
    ended = await remote("keys", "revoke", secret)
    assert ended.out == f"Key {number} of alice is revoked.\n"
    assert [await proxy.status(key) for key in (secret, new["secret"])] == [401, 200]
    revoked = (await remote.json("keys", "list", "--status", "revoked"))["keys"]
    assert [key["id"] for key in revoked] == [made["id"]]

    foreign = compose_key("dev", "a" * RANDOM_CHARACTERS)
    for reference in (foreign, foreign[:-1]):
        refused = (await remote("keys", "revoke", reference)).err
        assert "there is no key" in refused
        assert reference not in refused, "it is a secret, or nearly one"


async def test_calls_are_found_explained_and_refunded_from_another_machine(
    api: Api, proxy: Proxy, remote: Remote
) -> None:
    last, first = await called(api, proxy, 2)
    await remote.log_in(api.demo.tokens["owner"])
    people = (await remote("calls", "list")).out
    for words in ("alice", "any", last, first, "completed"):
        assert words in people
    chosen = (
        *(("--route", "any"), ("--route", "more"), ("--ending", "completed"), ("--status", "404")),
        *(("--key", api.demo.key.text), ("--since", "1h"), ("--until", "1h"), ("--limit", "1")),
    )
    found = [len((await remote.json("calls", "list", *words))["calls"]) for words in chosen]
    assert found == [2, 0, 2, 0, 2, 2, 0, 1]

    refund = (await remote.json("calls", "refund", last.upper(), "--note", "late"))["refund"]
    assert (refund["restored_credits"], refund["request_id"]) == ("1", last)
    assert (await remote("calls", "refund", last)).code == 2
    shown = (await remote("calls", "show", last)).out
    assert "alice on any, with key" in shown
    assert "charged 1 credits, refunded 1: 0 in the end" in shown

    series = (await remote.json("usage", "alice", "--by", "key", "--by", "day"))["usage"]
    (point,) = series["points"]
    assert (point["key_id"], point["calls"], point["charged_credits"]) == (
        *(api.demo.key.key_id, 2),
        "2",
    )
    assert series["from"] < series["until"]
    people = (await remote("usage")).out
    assert "any" in people
    assert "2 calls, 2 credits charged, from " in people
    assert "This calendar month: 2 calls, 2 credits so far" in people


async def test_with_an_api_key_one_sees_what_is_one_s_own(
    api: Api, proxy: Proxy, remote: Remote
) -> None:
    (call,) = await called(api, proxy, 1)
    await api.as_("owner").post("/v1/accounts", {"name": "bob"})
    await remote.log_in(api.demo.key.text)
    assert [key["account"] for key in (await remote.json("keys", "list"))["keys"]] == ["alice"]
    shown = await remote.json("accounts", "show", "alice")
    assert shown["balance"]["available_credits"] == "99"
    assert call in (await remote("calls", "list")).out
    assert (await remote.json("calls", "show", call))["receipt"]["net_credits"] == "1"
    assert (await remote.json("usage", "--by", "route"))["usage"]["points"][0]["calls"] == 1
    assert len((await remote.json("grants", "list", "alice"))["grants"]) == 1
    assert len((await remote.json("plans", "list"))["plans"]) == 2
    for words in (
        *(("accounts", "show", "bob"), ("grants", "list", "bob"), ("calls", "list", "bob")),
        *(("accounts", "list"), ("keys", "create", "alice"), ("accounts", "suspend", "alice")),
        ("calls", "refund", call),
    ):
        answer = await remote(*words)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), words


async def test_who_may_only_look_is_told_so(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens["viewer"])
    assert (await remote.json("accounts", "list"))["accounts"]
    answer = await remote("accounts", "suspend", "alice")
    assert (answer.code, answer.err) == (2, "tollkeeper: Your role may not do this.\n")
    assert (await remote.json("accounts", "show", "alice"))["account"]["status"] == "active"


async def test_another_platform_s_things_are_not_there(api: Api, remote: Remote) -> None:
    await api.as_("owner").post("/v1/accounts", {"name": "bob"})
    await remote.log_in(api.other.tokens["owner"])
    key = api.demo.key
    for words in (
        *(("accounts", "show", "bob"), ("keys", "revoke", str(key.key_id))),
        *(("keys", "revoke", key.text), ("grants", "revoke", "1")),
    ):
        answer = await remote(*words)
        assert (answer.code, "there is no" in answer.err) == (2, True), words
    assert (await api.as_key().get("/v1/me")).status == 200


@pytest.mark.parametrize(
    "words",
    [
        *(("accounts", "sync", "alice"), ("events", "alice"), ("audit",), ("apply",)),
        ("reconcile", "--explain", "alice"),
    ],
)
async def test_what_is_about_this_machine_means_this_folder_s_config(
    api: Api, remote: Remote, words: tuple[str, ...]
) -> None:
    await remote.log_in(api.demo.tokens["owner"])
    answer = await remote(*words)
    assert (answer.code, "there is no file config.toml" in answer.err) == (2, True)


async def test_a_control_plane_that_is_away_is_said_to_be_in_one_line(
    api: Api, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens["owner"])
    url = f"http://127.0.0.1:{free_port()}"
    remote.change_login(url=url)
    for words in (("accounts", "list"), ("accounts", "suspend", "alice")):
        answer = await remote(*words)
        assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
        assert answer.err.startswith(f"tollkeeper: {url} can't be reached (Connection refused)")
        assert "may have been done" not in answer.err
