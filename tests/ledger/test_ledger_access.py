"""Tokens, logins and claims of requests are believed as they are at the moment of a request."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from gateway.ledger import Ledger, LedgerRejected, Scope, Tenancy
from gateway.ledger.access import RefreshedSession, RequestClaim, ReusedRefresh
from policies.catalog import Platform

if TYPE_CHECKING:
    from gateway.ledger import AccountRow

HOUR_MS = 3_600_000
FAR_MS = 4_000_000_000_000
PRINT = b"f" * 32
_numbers = itertools.count()


def digest() -> bytes:
    return b"%032d" % next(_numbers)


@pytest_asyncio.fixture
async def alice(ledger: Ledger) -> AccountRow:
    report = await ledger.apply_catalog(Platform("demo"), [], [])
    await ledger.create_account(report.platform_id, "alice", None)
    found = await ledger.find_account(report.platform_id, "alice")
    assert found is not None
    return found


async def token(
    ledger: Ledger,
    platform_id: int | None = None,
    account_id: int | None = None,
    role: str = "operator",
    *,
    hashed: bytes | None = None,
    expires_ms: int = 0,
) -> int:
    made = await ledger.create_token(
        platform_id,
        account_id,
        role=role,
        name="ci",
        prefix="tt_dev_Ab3x",
        last4="9fQz",
        digest=hashed or digest(),
        expires_ms=expires_ms,
    )
    assert made is not None
    return made


async def session(ledger: Ledger, token_id: int, hashed: bytes, expires_ms: int = FAR_MS) -> str:
    session_id = uuid.uuid4().hex
    await ledger.begin_session(session_id, token_id, hashed, expires_ms)
    return session_id


async def change(url: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement, *arguments)
    await connection.close()


async def test_a_token_says_whose_it_is(ledger: Ledger, alice: AccountRow) -> None:
    hashed = digest()
    made = await token(
        ledger, alice.platform_id, alice.account_id, "admin", hashed=hashed, expires_ms=FAR_MS
    )
    found = await ledger.find_token(hashed)
    assert found is not None
    assert found[:10] == (
        made, alice.platform_id, "demo", alice.account_id, "alice", "admin", "ci", "tt_dev_Ab3x",
        "9fQz", FAR_MS,
    )  # fmt: skip
    assert (found.revoked_ms, found.created_ms > 0) == (0, True)
    assert await ledger.find_token(digest()) is None
    assert hashed.decode() not in repr(found)


@pytest.mark.parametrize(
    ("role", "of_platform", "of_account"),
    [
        ("operator", True, False),
        ("owner", False, False),
        ("viewer", True, True),
        ("member", True, False),
        ("god", False, False),
    ],
)
async def test_a_role_goes_with_its_tenant_only(
    ledger: Ledger, alice: AccountRow, role: str, of_platform: bool, of_account: bool
) -> None:
    with pytest.raises(LedgerRejected):
        await token(
            ledger,
            alice.platform_id if of_platform else None,
            alice.account_id if of_account else None,
            role,
        )


async def test_an_account_of_another_platform_gets_no_token(
    ledger: Ledger, alice: AccountRow
) -> None:
    other = (await ledger.apply_catalog(Platform("other"), [], [])).platform_id
    facts = {"role": "admin", "name": "n", "prefix": "p", "last4": "l", "digest": digest()}
    assert await ledger.create_token(other, alice.account_id, **facts) is None  # type: ignore[arg-type]


async def test_tokens_are_listed_by_whose_they_are_a_page_at_a_time(
    ledger: Ledger, alice: AccountRow
) -> None:
    platform, account = alice.platform_id, alice.account_id
    operators = [await token(ledger) for _ in range(2)]
    owners = [await token(ledger, platform, None, "owner") for _ in range(3)]
    admin = await token(ledger, platform, account, "admin")

    async def ids(*arguments: int | None, after: int = 0, limit: int = 10) -> list[int]:
        page = await ledger.tokens(*arguments, after=after, limit=limit)
        return [row.token_id for row in page]

    assert await ids(None, None) == operators
    assert await ids(platform, None) == [*owners, admin]
    assert await ids(platform, account) == [admin]
    assert await ids(platform, None, limit=2) == owners[:2]
    assert await ids(platform, None, after=owners[1], limit=2) == [owners[2], admin]
    assert await ledger.token(platform, account, owners[0]) is None
    found = await ledger.token(platform, None, owners[0])
    assert found is not None
    assert found.role == "owner"


async def test_a_foreign_token_is_neither_found_nor_revoked(
    ledger: Ledger, alice: AccountRow
) -> None:
    other = (await ledger.apply_catalog(Platform("other"), [], [])).platform_id
    operator, owner = await token(ledger), await token(ledger, alice.platform_id, None, "owner")
    for platform, account, token_id in [
        (other, None, owner),
        (other, None, operator),
        (None, None, owner),
        (alice.platform_id, alice.account_id, owner),
    ]:
        assert not await ledger.revoke_token(platform, account, token_id)
        assert await ledger.token(platform, account, token_id) is None
    found = await ledger.token(alice.platform_id, None, owner)
    assert found is not None
    assert found.revoked_ms == 0


async def test_the_first_revocation_stays(ledger: Ledger) -> None:
    hashed = digest()
    made = await token(ledger, hashed=hashed)
    times = []
    for _ in range(2):
        assert await ledger.revoke_token(None, None, made)
        found = await ledger.find_token(hashed)
        assert found is not None
        times.append(found.revoked_ms)
    assert times[0] == times[1] > 0


async def test_a_login_lasts_as_long_as_itself_and_its_token(
    ledger: Ledger, postgres_url: str
) -> None:
    first, second = digest(), digest()
    made = await token(ledger)
    ended, running = await session(ledger, made, first), await session(ledger, made, second)
    expired = await session(ledger, made, digest(), expires_ms=1)
    assert await ledger.live_session(expired) is None
    assert await ledger.live_session(uuid.uuid4().hex) is None

    found = await ledger.live_session(running)
    assert found is not None
    assert found.token_id == made
    await ledger.end_session(ended)
    await ledger.end_session(ended)
    assert await ledger.live_session(ended) is None
    assert await ledger.refresh_session(ended, first, digest()) is None
    assert await ledger.live_session(running) is not None

    await change(postgres_url, "UPDATE api_tokens SET expires_at = now()")
    assert await ledger.live_session(running) is None
    assert await ledger.refresh_session(running, second, digest()) is None
    await change(postgres_url, "UPDATE api_tokens SET expires_at = NULL")
    await ledger.revoke_token(None, None, made)
    assert await ledger.live_session(running) is None
    assert await ledger.refresh_session(running, second, digest()) is None


async def test_each_refresh_token_is_good_once_and_an_old_one_ends_the_login(
    ledger: Ledger,
) -> None:
    made = await token(ledger)
    chain = [digest() for _ in range(4)]
    for stolen in chain[:3]:
        chain[0] = digest()
        session_id = await session(ledger, made, chain[0])
        shown = chain[0] if stolen not in chain else stolen
        for before, after in itertools.pairwise(chain):
            refreshed = await ledger.refresh_session(session_id, before, after)
            assert refreshed == RefreshedSession(made, FAR_MS)
        assert await ledger.refresh_session(session_id, shown, digest()) == ReusedRefresh(made)
        assert await ledger.live_session(session_id) is None
        assert await ledger.refresh_session(session_id, chain[-1], digest()) is None
        chain[1:] = [digest() for _ in range(3)]


async def test_of_two_who_refresh_at_once_one_may_and_the_login_ends(ledger: Ledger) -> None:
    hashed = digest()
    session_id = await session(ledger, await token(ledger), hashed)
    ended = await asyncio.gather(
        *(ledger.refresh_session(session_id, hashed, digest()) for _ in range(2))
    )
    assert {type(one) for one in ended} == {RefreshedSession, ReusedRefresh}
    assert await ledger.live_session(session_id) is None


async def test_another_admin_token_ends_the_logins_of_the_one_before(ledger: Ledger) -> None:
    old, new = digest(), digest()
    made = await token(ledger)
    mine = await session(ledger, made, digest())
    old_id = await ledger.admin_token(old, "admin token")
    assert await ledger.admin_token(old, "admin token") == old_id
    before = await session(ledger, old_id, digest())
    assert await ledger.end_other_admin_tokens(old) == 0
    assert await ledger.end_other_admin_tokens(new) == 1
    assert await ledger.live_session(before) is None
    assert await ledger.live_session(mine) is not None, "tokens that people made stay"

    assert await ledger.admin_token(old, "admin token") == old_id, "it was put back"
    assert await ledger.live_session(before) is None, "its old logins were not"
    after = await ledger.live_session(await session(ledger, old_id, digest()))
    assert after is not None
    assert (after.role, after.platform_id) == ("operator", None)


async def test_only_logins_that_have_expired_are_deleted(ledger: Ledger) -> None:
    made = await token(ledger)
    kept = [await session(ledger, made, digest()) for _ in range(2)]
    for _ in range(5):
        await session(ledger, made, digest(), expires_ms=1)
    await ledger.end_session(kept[0])
    assert [await ledger.delete_sessions(3) for _ in range(3)] == [3, 2, 0]
    assert await ledger.live_session(kept[1]) is not None


async def test_one_of_all_who_send_a_key_does_the_request(ledger: Ledger) -> None:
    name = digest()
    claims = await asyncio.gather(
        *(ledger.claim_request("token:1", name, PRINT, f"r{number}") for number in range(8))
    )
    assert claims.count(None) == 1
    first = f"r{claims.index(None)}"
    assert {claim.request_id for claim in claims if claim} == {first}
    assert await ledger.claim_request("token:2", name, PRINT, "other") is None, "keys are one's own"

    assert await ledger.answer_request("token:1", name, first, 201, b"sealed")
    kept = await ledger.claim_request("token:1", name, b"g" * 32, "again")
    assert kept == RequestClaim(first, PRINT, kept.age_ms if kept else 0, 201, b"sealed")
    assert not await ledger.take_over_request("token:1", name, first, "again")
    assert not await ledger.release_request("token:1", name, first), "what was answered stays"


async def test_a_dead_request_s_claim_is_taken_over_by_one_and_it_comes_too_late(
    ledger: Ledger,
) -> None:
    name = digest()
    assert await ledger.claim_request("a", name, PRINT, "dead") is None
    taken = await asyncio.gather(
        *(ledger.take_over_request("a", name, "dead", f"r{number}") for number in range(8))
    )
    assert taken.count(True) == 1
    heir = f"r{taken.index(True)}"
    assert not await ledger.answer_request("a", name, "dead", 201, b"late")
    assert not await ledger.release_request("a", name, "dead")
    assert await ledger.answer_request("a", name, heir, 200, b"right")


async def test_a_released_claim_is_anybody_s(ledger: Ledger) -> None:
    name = digest()
    assert await ledger.claim_request("a", name, PRINT, "r1") is None
    assert await ledger.release_request("a", name, "r1")
    assert await ledger.claim_request("a", name, b"g" * 32, "r2") is None


async def test_claims_are_forgotten_after_their_time(ledger: Ledger, postgres_url: str) -> None:
    for number in range(5):
        await ledger.claim_request("a", digest(), PRINT, f"r{number}")
    assert await ledger.delete_requests(HOUR_MS, 10) == 0
    await change(postgres_url, "UPDATE api_requests SET claimed_at = now() - interval '61 min'")
    await ledger.claim_request("a", digest(), PRINT, "young")
    assert [await ledger.delete_requests(HOUR_MS, 3) for _ in range(3)] == [3, 2, 0]


async def test_the_api_manages_its_tenant_s_tokens_and_sees_no_login(
    postgres_url: str, ledger: Ledger, alice: AccountRow
) -> None:
    operator = await token(ledger)
    owner = await token(ledger, alice.platform_id, None, "owner")
    async with Tenancy(postgres_url) as tenancy:
        platform = tenancy.ledger(Scope(alice.platform_id, None, "token:1"))
        mine = await token(platform, alice.platform_id, alice.account_id, "member")
        assert [
            row.token_id for row in await platform.tokens(alice.platform_id, None, limit=9)
        ] == [
            owner,
            mine,
        ]
        assert await platform.tokens(None, None, limit=9) == []
        assert not await platform.revoke_token(None, None, operator)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await token(platform)
        account = tenancy.ledger(Scope(alice.platform_id, alice.account_id, "token:2"))
        assert not await account.revoke_token(alice.platform_id, None, owner)
        assert await account.revoke_token(alice.platform_id, alice.account_id, mine)
        for forbidden in (
            account.live_session(uuid.uuid4().hex),
            account.signing_key(),
            account.signing_keys(),
            account.claim_request("a", digest(), PRINT, "r"),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await forbidden
