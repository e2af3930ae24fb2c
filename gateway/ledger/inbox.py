"""What Stripe said: its events as they came, and what became of them.

How they get here, and to whoever works on them, is in queue.py: a job of the queue is written in
the transaction that keeps its event. A row here is the truth; a job only says "look at it".

    waiting ──► done       worked on
       │  ▲     ignored    nobody has a use for it
       │  └─── parked      tried as often as is sensible; waits for a person, who replays it
       └──────► parked
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.database import Database, Session, rows
from gateway.ledger.searching import SCAN_ROWS_MAX, Page, page_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The end of the year 9999, behind every event.
RECEIVED_US_MAX = 253_402_300_799_999_000
PROBLEM_CHARACTERS_MAX = 1_000


class EventKey(NamedTuple):
    """Which event. Its text is what a job of the queue carries."""

    platform_id: int
    livemode: bool
    event_id: str

    @property
    def text(self) -> str:
        """As in "12:0:evt_123"; stripe_event_lost.sql writes the same."""
        return f"{self.platform_id}:{self.livemode:d}:{self.event_id}"

    @classmethod
    def of(cls, text: str) -> EventKey:
        """The key of a job."""
        platform_id, livemode, event_id = text.split(":", 2)
        return cls(int(platform_id), livemode == "1", event_id)


class NewEvent(NamedTuple):
    """An event as it came. `payload` is its JSON; `status` is "waiting" or "ignored"."""

    event_id: str
    type: str
    object_id: str | None
    shape: str  # snapshot | thin
    source: str  # webhook | reconcile
    payload: str
    status: str
    created_ms: int


class StripeEventRow(NamedTuple):
    """An event as people see it. `received_us` is in microseconds; `done_ms` 0: not yet."""

    platform_id: int
    livemode: bool
    event_id: str
    type: str
    object_id: str
    shape: str
    source: str
    status: str
    attempts: int
    problem: str
    created_ms: int
    received_us: int
    done_ms: int

    @property
    def key(self) -> EventKey:
        """Which it is."""
        return EventKey(self.platform_id, self.livemode, self.event_id)


class WaitingEvent(NamedTuple):
    """An event to be worked on. `attempts` are those that failed and count."""

    type: str
    object_id: str
    attempts: int
    created_ms: int
    payload: Mapping[str, Any]


class StripeEventFilter(NamedTuple):
    """Which events; None does not ask."""

    status: str | None = None
    type: str | None = None
    object_id: str | None = None


class StripeEventPlace(NamedTuple):
    """A place in the order in which events came: behind this one."""

    received_us: int
    event_id: str


class InboxFigures(NamedTuple):
    """How many events of the deployment wait for work, and how many for a person."""

    waiting: int
    parked: int


ALL_STRIPE_EVENTS = StripeEventFilter()
FIRST_PLACE = StripeEventPlace(RECEIVED_US_MAX, "")


class Inbox(Database):
    """Events of Stripe."""

    async def stripe_event_page(
        self,
        platform_id: int,
        wanted: StripeEventFilter = ALL_STRIPE_EVENTS,
        *,
        after: StripeEventPlace = FIRST_PLACE,
        limit: int,
        scan_rows_max: int = SCAN_ROWS_MAX,
    ) -> Page[StripeEventRow, StripeEventPlace]:
        """A platform's events, newest first by when they came."""
        found = await self._session.all(
            "stripe_event_page", platform_id, *after, scan_rows_max, limit + 1, *wanted
        )
        return page_of(found, StripeEventRow, _place, limit, scan_rows_max)

    async def stripe_event(
        self, platform_id: int, event_id: str
    ) -> tuple[StripeEventRow, Mapping[str, Any]] | None:
        """One event, and its payload as it came."""
        record = await self._session.one("stripe_event_get", platform_id, event_id)
        if record is None:
            return None
        fields = dict(record)
        payload = json.loads(fields.pop("payload"))
        return StripeEventRow(**fields), payload

    async def waiting_stripe_event(self, key: EventKey) -> WaitingEvent | None:
        """What a job is about; None: it is over, or parked."""
        record = await self._session.one("stripe_event_waiting", *key)
        if record is None:
            return None
        return WaitingEvent(**{**record, "payload": json.loads(record["payload"])})

    async def mark_stripe_event(
        self, key: EventKey, status: str, attempts: int, problem: str = ""
    ) -> bool:
        """What became of an event that waited; False: it did not wait any more."""
        told = problem.replace("\x00", "")[:PROBLEM_CHARACTERS_MAX] or None
        marked = await self._session.value("stripe_event_mark", *key, status, attempts, told)
        return marked is not None

    async def known_stripe_events(
        self, platform_id: int, livemode: bool, event_ids: Sequence[str]
    ) -> set[str]:
        """Which of these came before."""
        found = await self._session.all("stripe_event_known", platform_id, livemode, event_ids)
        return {row["event_id"] for row in found}

    async def inbox_figures(self) -> InboxFigures:
        """What waits, of all platforms."""
        (figures,) = rows(InboxFigures, await self._session.all("stripe_event_open"))
        return figures

    async def trim_stripe_events(self, older_than_ms: int, limit: int) -> int:
        """Delete some events that are over and so old; answers how many."""
        return int(await self._session.value("stripe_event_trim", older_than_ms, limit))

    async def unbooked_payments(
        self, platform_id: int, livemode: bool, business_keys: Sequence[str]
    ) -> set[str]:
        """Of payments that were made, as "invoice:in_1": those that the books have not as made."""
        found = await self._session.all(
            "stripe_payment_unbooked", platform_id, livemode, business_keys
        )
        return {row["business_key"] for row in found}

    async def stripe_cursor(self, platform_id: int, livemode: bool, name: str) -> int | None:
        """How far a reconciler has looked; None: nowhere yet."""
        at_ms = await self._session.value("stripe_cursor_get", platform_id, livemode, name)
        return None if at_ms is None else int(at_ms)

    async def move_stripe_cursor(
        self, platform_id: int, livemode: bool, name: str, at_ms: int
    ) -> None:
        """A reconciler has looked so far."""
        await self._session.all("stripe_cursor_set", platform_id, livemode, name, at_ms)

    async def claim_stripe_turn(self, every_ms: int) -> int | None:
        """A platform that is to be reconciled now, by whoever is answered; None: none is."""
        platform_id = await self._session.value("stripe_turn_claim", every_ms)
        return None if platform_id is None else int(platform_id)


async def insert_events(
    session: Session, platform_id: int, livemode: bool, events: Sequence[NewEvent]
) -> list[EventKey]:
    """Keep those that are new, in the session's transaction; answers which are to be worked on."""
    columns = [list(column) for column in zip(*events, strict=True)]
    kept = await session.all("stripe_event_insert", platform_id, livemode, *columns)
    return [
        EventKey(platform_id, livemode, row["event_id"])
        for row in kept
        if row["status"] == "waiting"
    ]


def _place(row: StripeEventRow) -> StripeEventPlace:
    return StripeEventPlace(row.received_us, row.event_id)
