"""An event that was answered with 200 is kept, and one that should not be believed is not."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from gateway.control.stripe_webhooks import EVENT_BYTES_MAX
from gateway.ledger.inbox import EventKey
from gateway.stripe_sync.errors import KeysMissingError
from gateway.stripe_sync.webhooks import TOLERANCE_MS
from policies.catalog import Platform
from tests.support.inbox import TEST, jobs, statuses
from tests.support.postgres_gate import postgres_gate
from tests.support.stripe_intake import SECRET, running_intake, snapshot_event, thin_event
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.stripe_intake import Intake

OTHER_SECRET = "whsec_another"
TOLERANCE_S = TOLERANCE_MS // 1_000


@pytest_asyncio.fixture
async def intake(postgres_url: str) -> AsyncIterator[Intake]:
    async with running_intake(postgres_url) as running:
        running.handlers["invoice.paid"] = running.record
        yield running


async def kept(intake: Intake) -> dict[str, str]:
    return await statuses(intake.postgres_url)


async def test_200_says_that_the_event_is_kept_with_a_job(intake: Intake) -> None:
    answer = await intake.post(snapshot_event())
    assert (answer.status, answer.body) == (200, {"received": "evt_1"})
    found = await intake.ledger.stripe_event(intake.platform_id, "evt_1")
    assert found is not None
    row, payload = found
    assert payload == snapshot_event()
    assert row[:10] == (
        *(intake.platform_id, TEST, "evt_1", "invoice.paid", "in_1"),
        *("snapshot", "webhook", "waiting", 0, ""),
    )
    assert (row.created_ms, row.done_ms) == (1_700_000_000_000, 0)
    assert list(await jobs(intake.postgres_url)) == [row.key.text]
    assert intake.count("events_received", shape="snapshot", again="false") == 1


async def test_an_event_that_comes_again_is_answered_alike_and_kept_once(intake: Intake) -> None:
    answers = await asyncio.gather(*(intake.post(snapshot_event()) for _ in range(6)))
    assert {answer.status for answer in answers} == {200}
    assert await kept(intake) == {"evt_1": "waiting"}
    assert len(await jobs(intake.postgres_url)) == 1
    assert intake.count("events_received", shape="snapshot", again="false") == 1
    assert intake.count("events_received", shape="snapshot", again="true") == 5


async def test_a_thin_event_is_kept_as_one_of_the_same_type(intake: Intake) -> None:
    assert (await intake.post(thin_event())).status == 200
    found = await intake.ledger.stripe_event(intake.platform_id, "evt_thin")
    assert found is not None
    row, _ = found
    assert (row.type, row.object_id, row.shape) == ("invoice.paid", "in_1", "thin")
    assert row.created_ms == 1_700_000_000_000


async def test_a_thin_event_that_names_its_twin_is_the_same_event(intake: Intake) -> None:
    for document in (
        *(thin_event(snapshot_event="evt_1"), snapshot_event("evt_1")),
        *(snapshot_event("evt_2"), thin_event(snapshot_event="evt_2")),
    ):
        assert (await intake.post(document)).status == 200
    assert await kept(intake) == {"evt_1": "waiting", "evt_2": "waiting"}


async def test_what_nobody_handles_is_kept_without_a_job(intake: Intake) -> None:
    assert (await intake.post(snapshot_event(kind="payment_link.created"))).status == 200
    of_nothing = thin_event("evt_2", type="v2.core.event_destination.ping", related_object=None)
    assert (await intake.post(of_nothing)).status == 200
    assert await kept(intake) == {"evt_1": "ignored", "evt_2": "ignored"}
    assert await jobs(intake.postgres_url) == {}


REFUSED: tuple[tuple[object, dict[str, Any], str], ...] = (
    (snapshot_event(), {"header": ""}, "stripe_signature"),
    (snapshot_event(), {"header": "t=1,v1=2"}, "stripe_signature"),
    (snapshot_event(), {"header": "nonsense"}, "stripe_signature"),
    (snapshot_event(), {"secrets": (OTHER_SECRET,)}, "stripe_signature"),
    (snapshot_event(), {"at_s": -TOLERANCE_S - 5}, "stripe_timestamp"),
    (snapshot_event(), {"at_s": TOLERANCE_S + 5}, "stripe_timestamp"),
    (b"{", {}, "stripe_unreadable"),
    (b'{"id": "\xff"}', {}, "stripe_unreadable"),
    (b'{"id": NaN}', {}, "stripe_unreadable"),
    (b"[" * 100_000, {}, "stripe_unreadable"),
    ([snapshot_event()], {}, "stripe_no_event"),
    ("event", {}, "stripe_no_event"),
    ({}, {}, "stripe_no_event"),
    (snapshot_event(object="invoice"), {}, "stripe_no_event"),
    (snapshot_event(id=7), {}, "stripe_no_event"),
    (snapshot_event(type=None), {}, "stripe_no_event"),
    (snapshot_event(type="x" * 256), {}, "stripe_no_event"),
    (snapshot_event(livemode="false"), {}, "stripe_no_event"),
    (snapshot_event(created="now"), {}, "stripe_no_event"),
    (snapshot_event(created=10**17), {}, "stripe_no_event"),
    (snapshot_event(data=None), {}, "stripe_no_event"),
    (snapshot_event(data={"object": {"id": 7}}), {}, "stripe_no_event"),
    (snapshot_event(data={"object": {}}), {}, "stripe_no_event"),
    (thin_event(related_object=None), {}, "stripe_no_event"),
    (thin_event(related_object={"type": "invoice"}), {}, "stripe_no_event"),
    (thin_event(created=1_700_000_000), {}, "stripe_no_event"),
    (thin_event(created="yesterday"), {}, "stripe_no_event"),
    (thin_event(livemode=None), {}, "stripe_no_event"),
    (snapshot_event(livemode=True), {}, "stripe_mode"),
    (thin_event(livemode=True), {}, "stripe_mode"),
    (snapshot_event(account="acct_other"), {}, "stripe_account"),
    (thin_event(context="acct_other"), {}, "stripe_account"),
    (b" " * (EVENT_BYTES_MAX + 1), {}, "stripe_too_large"),
)


@pytest.mark.parametrize(
    ("document", "options", "code"),
    REFUSED,
    ids=[f"{number}-{case[2]}" for number, case in enumerate(REFUSED)],
)
async def test_what_is_not_to_be_believed_is_400_and_counted_by_its_reason(
    intake: Intake, document: object, options: dict[str, Any], code: str
) -> None:
    if "at_s" in options:
        options = {"at_s": time.time() + options["at_s"]}
    answer = await intake.post(document, **options)
    assert (answer.status, answer.body["code"]) == (400, code)
    assert intake.count("events_refused", reason=code.removeprefix("stripe_")) == 1
    assert SECRET not in json.dumps(answer.body)
    assert await kept(intake) == {}
    assert await jobs(intake.postgres_url) == {}


async def test_signatures_of_both_clocks_edges_are_taken(intake: Intake) -> None:
    for number, offset_s in enumerate((20 - TOLERANCE_S, TOLERANCE_S - 20)):
        document = snapshot_event(f"evt_{number}")
        answer = await intake.post(document, at_s=time.time() + offset_s)
        assert answer.status == 200


async def test_a_body_of_no_stated_length_is_bounded_as_well(intake: Intake) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(EVENT_BYTES_MAX // 1024 + 1):
            yield b" " * 1024

    async with intake._session.post(f"{intake.url}/webhooks/stripe/demo", data=pieces()) as answer:
        assert answer.status == 400
        assert (await answer.json(content_type=None))["code"] == "stripe_too_large"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 100", b"{"),
        (b"Content-Length: 6\r\nContent-Encoding: gzip", b"abcdef"),
    ],
    ids=["broken off", "packed otherwise"],
)
async def test_whoever_sends_a_broken_body_makes_no_error_in_the_log(
    intake: Intake, headers: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can send one: an error would say that something of ours is to be mended."""
    parts = urlsplit(intake.url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = b"POST /webhooks/stripe/demo HTTP/1.1\r\nHost: here\r\n"
    writer.write(head + headers + b"\r\n\r\n" + body)
    await writer.drain()
    writer.close()
    await eventually(lambda: intake.count("events_refused", reason="unreadable") == 1)
    ours = [one for one in caplog.records if one.name == "tollkeeper.control"]
    assert [one.levelname for one in ours] == ["WARNING"]


async def test_events_of_the_account_that_is_the_platforms_are_taken(intake: Intake) -> None:
    intake.source.change(intake.platform_id, stripe_account="acct_1")
    assert (await intake.post(snapshot_event(account="acct_1"))).status == 200
    assert (await intake.post(snapshot_event("evt_2", account="acct_2"))).status == 400
    assert (await intake.post(thin_event("evt_3", context="acct_1"))).status == 200
    assert (await intake.post(snapshot_event("evt_4"))).status == 200


async def test_while_secrets_are_rotated_both_are_good_and_afterwards_one(intake: Intake) -> None:
    def told(*secrets: str) -> None:
        intake.source.change(intake.platform_id, webhook_secrets=secrets)

    new = "whsec_new"
    told(SECRET, new)
    assert (await intake.post(snapshot_event("evt_1"), secrets=(SECRET,))).status == 200
    assert (await intake.post(snapshot_event("evt_2"), secrets=(new,))).status == 200
    assert (await intake.post(snapshot_event("evt_3"), secrets=(OTHER_SECRET, new))).status == 200
    told(new)
    assert (await intake.post(snapshot_event("evt_4"), secrets=(SECRET,))).status == 400
    assert (await intake.post(snapshot_event("evt_4"), secrets=(SECRET, new))).status == 200
    told()
    assert (await intake.post(snapshot_event("evt_5"), secrets=(new,))).status == 400


async def test_a_platform_that_is_not_there_or_has_no_stripe_is_404(intake: Intake) -> None:
    await intake.ledger.apply_catalog(Platform("without"), (), ())
    answers = [await intake.post(snapshot_event(), slug=slug) for slug in ("nobody", "without")]
    assert [(answer.status, answer.body["code"]) for answer in answers] == [(404, "not_found")] * 2
    assert intake.count("events_refused", reason="unknown") == 2


async def test_an_event_signed_for_one_platform_is_not_anothers(intake: Intake) -> None:
    other = (await intake.ledger.apply_catalog(Platform("other"), (), ())).platform_id
    intake.source.by_platform[other] = replace(
        intake.source.by_platform[intake.platform_id],
        platform_id=other,
        slug="other",
        webhook_secrets=(OTHER_SECRET,),
    )
    assert (await intake.post(snapshot_event(), slug="other")).status == 400
    assert (
        await intake.post(snapshot_event(), slug="other", secrets=(OTHER_SECRET,))
    ).status == 200
    assert list(await jobs(intake.postgres_url)) == [EventKey(other, TEST, "evt_1").text]


async def test_without_postgres_it_is_503_and_nothing_is_lost_or_kept_twice(
    postgres_url: str,
) -> None:
    async with (
        postgres_gate(postgres_url) as (gate, through),
        running_intake(postgres_url, through) as intake,
    ):
        intake.handlers["invoice.paid"] = intake.record
        gate.shut()
        answer = await intake.post(snapshot_event("evt_1"))
        assert (answer.status, answer.body["code"]) == (503, "temporarily_unavailable")
        gate.open()
        gate.lose_next_answer(b"COMMIT")
        assert (await intake.post(snapshot_event("evt_2"))).status == 503
        for event_id in ("evt_1", "evt_2"):
            assert (await intake.post(snapshot_event(event_id))).status == 200
        assert await kept(intake) == {"evt_1": "waiting", "evt_2": "waiting"}
        assert len(await jobs(postgres_url)) == 2
        assert intake.count("events_refused", reason="unavailable") == 2


async def test_settings_that_need_mending_ask_for_the_event_again(intake: Intake) -> None:
    intake.source.failure = KeysMissingError("demo", "secret:gone")
    answer = await intake.post(snapshot_event())
    assert (answer.status, answer.body["code"]) == (503, "temporarily_unavailable")
    assert "gone" not in json.dumps(answer.body)


async def test_characters_that_postgres_can_not_keep_do_not_keep_an_event_out(
    intake: Intake,
) -> None:
    about = {"id": "in_1", "metadata": {"a\x00": ["\x00b", "\\u0000"]}}
    assert (await intake.post(snapshot_event(data={"object": about}))).status == 200
    found = await intake.ledger.stripe_event(intake.platform_id, "evt_1")
    assert found is not None
    assert found[1]["data"]["object"]["metadata"] == {"a\ufffd": ["\ufffdb", "\\u0000"]}


async def test_what_the_fake_stripe_sends_is_kept_and_worked_on_in_both_shapes(
    intake: Intake,
) -> None:
    intake.handlers["customer.created"] = intake.record
    intake.fake.add_endpoint(f"{intake.url}/webhooks/stripe/demo", forms=("snapshot", "thin"))
    customer = await intake.shop.customer()
    await intake.fake.delivered()
    assert [delivery.answers for delivery in intake.fake.deliveries.all] == [[200], [200]]
    async with intake.working():
        await eventually(lambda: len(intake.seen) == 2)
    assert {(hint.type, hint.object_id) for hint in intake.seen} == {("customer.created", customer)}
    assert sorted(bool(hint.object) for hint in intake.seen) == [False, True]
