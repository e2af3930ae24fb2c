"""What holds for every endpoint of the API, shown on accounts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import asyncpg
import pytest
from aiohttp import web

from gateway.control.api import idempotency, serve
from gateway.control.api.problems import Problem
from gateway.control.api.roles import Role
from gateway.ledger import Ledger
from gateway.operations.errors import NotToldError
from tests.support.gateway import PEPPER
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.api import Api

ACCOUNTS = "/v1/accounts"


async def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    answer = await api.as_("owner").post(
        ACCOUNTS, {"name": "", "credits": 12.5, "plan": "No Slug", "colour": "red"}
    )

    assert (answer.status, answer.code) == (422, "invalid")
    assert set(answer.wrong) == {"name", "credits", "plan", "colour"}
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b"null", b'"text"'])
async def test_what_is_no_document_is_refused(api: Api, body: bytes) -> None:
    client = api.as_("owner")
    async with client._session.post(
        api.url + ACCOUNTS,
        data=body,
        headers={
            "Authorization": f"Bearer {client.credential}",
            "Content-Type": "application/json",
        },
    ) as answer:
        assert answer.status in {400, 422}
        assert (await answer.json(content_type=None))["code"] in {"bad_request", "invalid"}


async def _sent(api: Api, path: str, body: bytes | None, kind: str | None) -> int:
    client = api.as_("owner")
    headers = {"Authorization": f"Bearer {client.credential}"}
    headers |= {} if kind is None else {"Content-Type": kind}
    async with client._session.post(api.url + path, data=body, headers=headers) as answer:
        return answer.status


@pytest.mark.parametrize("kind", ["application/json", "text/plain", None])
async def test_no_body_is_an_empty_document_where_nothing_must_be_said(
    api: Api, kind: str | None
) -> None:
    keys = f"{ACCOUNTS}/{api.demo.account.account_id}/keys"
    for body in (None, b"", b" \n"):
        assert await _sent(api, keys, body, kind) == 201
        assert await _sent(api, ACCOUNTS, body, kind) in {400, 415}, "a name must be said"
    paths = (await api.as_("owner").get("/openapi.json")).body["paths"]
    of_keys = paths[f"{ACCOUNTS}/{{account_id}}/keys"]["post"]["requestBody"]
    assert (of_keys["required"], paths[ACCOUNTS]["post"]["requestBody"]["required"]) == (
        False,
        True,
    )


async def test_an_unknown_field_is_told_with_those_that_there_are(api: Api) -> None:
    viewer, owner = api.as_("viewer"), api.as_("owner")
    unknown = (await viewer.get("/v1/revenue", since="2026-11-01T00:00:00Z")).wrong
    assert unknown == {
        "since": "Unknown field: there are limit, cursor, by, from, until, currency, mode."
    }
    misspelt = (await owner.post(ACCOUNTS, {"name": "bob", "credit": "5"})).wrong
    assert misspelt == {"credit": 'Unknown field: did you mean "credits"?'}
    settings = {"secret_key": "secret:key", "portal_url": "https://example.com"}
    misspelt = (await owner.put("/v1/stripe", settings)).wrong
    assert misspelt == {"portal_url": 'unknown key; did you mean "portal_return_url"?'}


async def test_what_a_text_looks_like_is_said_in_words(api: Api) -> None:
    owner = api.as_("owner")
    subscribing = {"plan": "Pro", "currency": "EUR", "email": "x"}
    account = f"{ACCOUNTS}/{api.demo.account.account_id}"
    wrong = (await owner.post(f"{account}/subscribe", subscribing)).wrong
    assert wrong == {
        "plan": 'Write a name of a to z, 0 to 9, "-" and "_", as in "big-pack".',
        "currency": 'Write a currency in three small letters, as in "usd".',
        "email": 'Write an address of e-mail, as in "ada@example.com".',
    }
    wrong = (await owner.get("/v1/revenue/metrics", month="abc")).wrong
    assert wrong == {"month": 'Write a month as in "2026-11".'}
    schemas = (await owner.get("/openapi.json")).body["components"]["schemas"]
    assert schemas["NewSubscription"]["properties"]["plan"]["pattern"].startswith("^[a-z0-9]")


async def test_strangers_all_get_the_same_401(api: Api) -> None:
    known = api.as_("owner").credential
    assert known is not None
    bodies = set()
    for credential in (None, "wrong", known[:-1], "tt_dev_" + "0" * 28, "eyJ.eyJ.sig", "tk_dev_x"):
        answer = await api.client(credential).get(ACCOUNTS)
        assert answer.status == 401
        answer.body.pop("request_id")
        bodies.add(json.dumps(answer.body))
    assert len(bodies) == 1


async def test_who_fails_to_get_in_again_and_again_has_to_wait(api: Api) -> None:
    statuses = [(await api.client("wrong").get(ACCOUNTS)).status for _ in range(40)]

    assert statuses[0] == 401
    assert statuses[-1] == 429


async def test_what_belongs_to_others_is_not_there(api: Api) -> None:
    foreign = api.other.account.account_id
    for role in ("owner", "editor", "viewer"):
        assert (await api.as_(role).get(f"{ACCOUNTS}/{foreign}")).status == 404
    assert (await api.as_("owner").patch(f"{ACCOUNTS}/{foreign}", {})).status == 404
    answer = await api.as_("owner").ask(
        "GET", ACCOUNTS, headers={"Tollkeeper-Platform": api.other.slug}
    )
    assert answer.status == 404


async def test_an_operator_works_on_the_platform_that_it_names(api: Api) -> None:
    client = api.as_("operator")
    own = await client.get(ACCOUNTS)
    other = await client.ask("GET", ACCOUNTS, headers={"Tollkeeper-Platform": "other"})

    assert [row["id"] for row in own.body["data"]] == [api.demo.account.account_id]
    assert [row["id"] for row in other.body["data"]] == [api.other.account.account_id]


async def test_a_repeated_creation_is_answered_and_not_done_again(api: Api) -> None:
    key = {"Idempotency-Key": "k-1"}
    first, again = [
        await api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers=key) for _ in range(2)
    ]

    assert first.status == again.status == 201
    assert first.body == again.body
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api.as_("owner").post(ACCOUNTS, {"name": "carol"}, headers=key)
    assert (other.status, other.code) == (422, "idempotency_mismatch")


async def test_of_many_creations_with_one_key_one_is_done(api: Api) -> None:
    answers = await asyncio.gather(
        *(
            api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers={"Idempotency-Key": "k"})
            for _ in range(8)
        )
    )

    assert {answer.status for answer in answers} <= {201, 409}
    listed = await api.as_("owner").get(ACCOUNTS, name="bob")
    assert len(listed.body["data"]) == 1


async def test_a_key_of_one_caller_means_nothing_to_another(api: Api) -> None:
    key = {"Idempotency-Key": "k-1"}
    await api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers=key)
    answer = await api.as_("editor").post(ACCOUNTS, {"name": "carol"}, headers=key)

    assert answer.status == 201
    assert answer.body["name"] == "carol"


async def test_a_creation_whose_answer_is_lost_is_not_done_again(api: Api) -> None:
    key = {"Idempotency-Key": "k-1"}
    await api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers=key)
    connection = await asyncpg.connect(api.postgres_url)
    await connection.execute(
        "UPDATE api_requests SET status = NULL, answer = NULL,"
        " claimed_at = now() - interval '10 minutes'"
    )

    again = await api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers=key)
    assert (again.status, again.code) == (409, "answer_lost")

    await connection.execute("UPDATE api_requests SET request_id = 'died before it did anything'")
    await connection.execute("UPDATE api_requests SET fingerprint = fingerprint")
    taken = await api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers=key)
    await connection.close()
    assert (taken.status, taken.code) == (409, "name_taken"), "it is this one's turn"


async def test_an_operators_key_means_another_request_on_each_platform(api: Api) -> None:
    operator, body = api.as_("operator"), {"name": "bob"}
    answers = [
        await operator.post(
            ACCOUNTS, body, headers={"Idempotency-Key": "k", "Tollkeeper-Platform": slug}
        )
        for slug in ("demo", "other", "demo")
    ]

    assert [answer.status for answer in answers] == [201, 201, 201]
    first, other, again = [answer.body["id"] for answer in answers]
    assert first == again != other
    listed = await api.as_("owner", api.other).get(ACCOUNTS, name="bob")
    assert [row["id"] for row in listed.body["data"]] == [other]


async def test_what_is_not_told_is_not_repeated_and_that_is_said_at_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise NotToldError("alice")

    key = {"Idempotency-Key": "k-1"}
    path = f"{ACCOUNTS}/{api.demo.account.account_id}/keys"
    monkeypatch.setattr("gateway.operations.keys.publish_account", away)
    untold = await api.as_("owner").post(path, {"name": "ci"}, headers=key)
    monkeypatch.undo()
    again = await api.as_("owner").post(path, {"name": "ci"}, headers=key)

    assert (untold.status, untold.code) == (503, "not_effective_yet")
    assert (again.status, again.code) == (409, "answer_lost")
    assert untold.body["request_id"] in again.body["detail"]


async def test_a_failure_that_changed_nothing_can_be_repeated_at_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    key = {"Idempotency-Key": "k-1"}
    monkeypatch.setattr(Ledger, "create_account", fails)
    failed = await api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers=key)
    monkeypatch.undo()
    again = await api.as_("owner").post(ACCOUNTS, {"name": "bob"}, headers=key)

    assert (failed.status, again.status) == (500, 201)


async def test_who_lives_keeps_its_claim_for_as_long_as_it_takes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "CLAIM_BEAT_S", 0.01)
    asker, going_on = idempotency.Asker("token:1", 1), asyncio.Event()
    once = idempotency.Once(api.ledger, PEPPER)

    async def work() -> web.Response:
        await going_on.wait()
        return web.Response(body=b"{}", content_type="application/json")

    first = asyncio.create_task(once.answer(asker, "k", b"", "first", work))
    connection = await asyncpg.connect(api.postgres_url)

    async def age(seconds: int) -> bool:
        asked = f"claimed_at < now() - interval '{seconds} s'"
        return bool(await connection.fetchval(f"SELECT {asked} FROM api_requests"))

    await eventually(lambda: connection.fetchval("SELECT count(*) FROM api_requests"))
    await connection.execute("UPDATE api_requests SET claimed_at = now() - interval '1 hour'")

    async def young() -> bool:
        return not await age(60)

    await eventually(young)
    with pytest.raises(Problem, match="still runs"):
        await once.answer(asker, "k", b"", "second", work)
    going_on.set()
    assert (await first).status == 200
    await connection.close()


async def test_a_change_of_what_was_changed_since_is_refused(api: Api) -> None:
    path = f"{ACCOUNTS}/{api.demo.account.account_id}"
    seen = await api.as_("owner").get(path)
    first = await api.as_("owner").patch(
        path, {"status": "suspended"}, headers={"If-Match": seen.etag}
    )
    second = await api.as_("owner").patch(
        path, {"status": "active"}, headers={"If-Match": seen.etag}
    )

    assert first.status == 200
    assert (second.status, second.code) == (412, "precondition_failed")
    assert second.etag == first.etag


async def test_of_many_changes_of_one_version_one_is_done(api: Api) -> None:
    path = f"{ACCOUNTS}/{api.demo.account.account_id}"
    seen = (await api.as_("owner").get(path)).etag
    answers = await asyncio.gather(
        *(
            api.as_("owner").patch(
                path, {"discount_percent": str(percent)}, headers={"If-Match": seen}
            )
            for percent in range(1, 9)
        )
    )

    assert sorted(answer.status for answer in answers) == [200] + [412] * 7


async def test_what_was_not_changed_is_not_sent_again(api: Api) -> None:
    path = f"{ACCOUNTS}/{api.demo.account.account_id}"
    seen = await api.as_("owner").get(path)
    again = await api.as_("owner").ask("GET", path, headers={"If-None-Match": seen.etag})

    assert (again.status, again.body) == (304, "")


async def test_a_list_is_walked_by_its_cursors(api: Api) -> None:
    for number in range(5):
        await api.as_("owner").post(ACCOUNTS, {"name": f"account {number}"})
    names: list[str] = []
    cursor = None
    while True:
        page = await api.as_("viewer").get(ACCOUNTS, limit=2, cursor=cursor)
        names += [row["name"] for row in page.body["data"]]
        cursor = page.body["next_cursor"]
        if cursor is None:
            break

    assert names == ["alice", *(f"account {number}" for number in range(5))]
    wrong = await api.as_("viewer").get(ACCOUNTS, cursor="nonsense")
    assert set(wrong.wrong) == {"cursor"}


async def test_a_list_can_be_had_as_one_stream(api: Api) -> None:
    for name in ("=SUM(A1)", "plain"):
        await api.as_("owner").post(ACCOUNTS, {"name": name})
    as_csv = await api.as_("viewer").ask("GET", ACCOUNTS, headers={"Accept": "text/csv"})
    as_ndjson = await api.as_("viewer").ask(
        "GET", ACCOUNTS, headers={"Accept": "application/x-ndjson"}
    )

    lines = as_csv.body.splitlines()
    assert lines[0].startswith("id,name,status")
    assert len(lines) == 4
    assert "'=SUM(A1)" in as_csv.body, "no spreadsheet runs it"
    assert [json.loads(line)["name"] for line in as_ndjson.body.splitlines()] == [
        "alice",
        "=SUM(A1)",
        "plain",
    ]


async def test_paths_and_methods_that_are_not_there_say_so(api: Api) -> None:
    missing = await api.as_("owner").get("/v1/nothing")
    method = await api.as_("owner").delete(ACCOUNTS)

    assert (missing.status, missing.code) == (404, "not_found")
    assert (method.status, method.code) == (405, "method_not_allowed")
    assert method.headers["Allow"] == "GET, POST"


async def test_a_failing_database_is_503_and_no_riddle(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.ledger import Ledger, LedgerUnavailable

    async def fail(*_: object, **__: object) -> None:
        raise LedgerUnavailable("canary: host and port")

    monkeypatch.setattr(Ledger, "account", fail)
    answer = await api.as_("owner").get(f"{ACCOUNTS}/1")

    assert (answer.status, answer.code) == (503, "temporarily_unavailable")
    assert "canary" not in json.dumps(answer.body)
    assert answer.headers["Retry-After"] == "1"


async def test_a_mistake_of_ours_is_a_500_that_tells_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.ledger import Ledger

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(Ledger, "account", fail)
    answer = await api.as_("owner").get(f"{ACCOUNTS}/1")

    assert (answer.status, answer.code) == (500, "internal_error")
    assert "canary" not in json.dumps(answer.body)


async def test_roles_may_do_what_they_are_for(api: Api) -> None:
    expected = {
        Role.OWNER: 201,
        Role.EDITOR: 201,
        Role.VIEWER: 403,
        Role.ADMIN: 403,
        Role.MEMBER: 403,
    }
    for role, status in expected.items():
        answer = await api.as_(role).post(ACCOUNTS, {"name": f"by {role}"})
        assert answer.status == status, role
    assert (await api.as_key().post(ACCOUNTS, {"name": "by key"})).status == 403
    assert (await api.stranger.post(ACCOUNTS, {"name": "by nobody"})).status == 401


async def test_a_body_that_does_not_come_is_not_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "BODY_TIMEOUT_S", 0.1)
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    assert (await reader.readline()).split()[1] == b"408"
    writer.close()
