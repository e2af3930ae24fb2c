"""Events that Stripe sends: believed by their signature, kept with a job to work on them.

Both shapes take one way. A snapshot event carries its object as it was; a thin one ("v1." before
its type) names it. A thin event that says which snapshot event it is the twin of is kept under
that one's id, so that who asks for both shapes is told once; and where it does not say, working on
both does no harm, because the object is looked at as it is then.

Whatever is refused here, Stripe sends again for three days; and what it has given up on, the
reconciler finds (reconcile.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import orjson
import stripe

from gateway.clock import now_ms
from gateway.ledger.inbox import NewEvent
from gateway.stripe_sync.events import HANDLERS
from policies.spans import MINUTE_MS, SECOND_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from gateway.ledger.rows import PlatformRow
    from gateway.stripe_sync.settings import StripeSettings
    from gateway.stripe_sync.sync import SettingsSource

# How far a signature's time may be from ours, to either side: Stripe's own advice.
TOLERANCE_MS = 5 * MINUTE_MS
ID_CHARACTERS_MAX = 255
THIN, THIN_PREFIX = "v2.core.event", "v1."
_NUL, _ESCAPED_NUL = "\x00", b"\\u0000"
_REPLACEMENT = "\ufffd"


class Refusal(StrEnum):
    """Why an event was not taken. Each is counted."""

    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    SIGNATURE = "signature"
    TIMESTAMP = "timestamp"
    NO_EVENT = "no_event"
    MODE = "mode"
    ACCOUNT = "account"
    UNKNOWN = "unknown"  # a platform that is not there, or has no Stripe
    UNAVAILABLE = "unavailable"  # the only one that is not for good


class NotBelievedError(Exception):
    """What came is no event for this platform. The text says what to mend, and no secret."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class Received(NamedTuple):
    """An event that is kept; `is_new`: it had not come before, or is to be worked on again."""

    event_id: str
    shape: str
    is_new: bool


class Arrived(NamedTuple):
    """What an event says of itself, of either shape."""

    event: NewEvent
    livemode: bool
    account: str | None


class Platforms(Protocol):
    """Who is where: `Ledger`."""

    async def find_platform(self, slug: str) -> PlatformRow | None:
        """The platform of this name."""


class Keeper(Protocol):
    """Where events are kept: `EventQueue`."""

    async def receive_one(self, platform_id: int, livemode: bool, event: NewEvent) -> bool:
        """Keep an event and have it worked on; whether it was new."""


class Reception:
    """Takes events in."""

    def __init__(
        self,
        platforms: Platforms,
        source: SettingsSource,
        keeper: Keeper,
        *,
        handled: Collection[str] = HANDLERS,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        """`handled`: the types of events that somebody has a use for."""
        self._platforms = platforms
        self._source = source
        self._keeper = keeper
        self._handled = handled
        self._clock_ms = clock_ms
        self._platform_ids: dict[str, int] = {}

    async def receive(self, slug: str, body: bytes, signature: str) -> Received:
        """Keep an event that came for the platform; when this returns it is committed.

        Raises: NotBelievedError, LedgerUnavailable, and what the settings' source raises.
        """
        settings = await self._settings(slug)
        check_signature(_text(body), signature, settings.webhook_secrets, self._clock_ms())
        arrived = read_event(body, self._handled)
        _check_tenant(arrived, settings)
        event = arrived.event
        is_new = await self._keeper.receive_one(settings.platform_id, settings.livemode, event)
        return Received(event.event_id, event.shape, is_new)

    async def _settings(self, slug: str) -> StripeSettings:
        platform_id = self._platform_ids.get(slug)
        if platform_id is None:
            platform = await self._platforms.find_platform(slug)
            if platform is None:
                raise _unknown()
            # It is that platform's for ever: slugs don't change, and platforms stay.
            platform_id = self._platform_ids[slug] = platform.platform_id
        settings = await self._source.settings(platform_id)
        if settings is None:
            raise _unknown()
        return settings


def check_signature(text: str, header: str, secrets: Sequence[str], at_ms: int) -> None:
    """Whether one of the secrets signed this, not long ago and not later than now.

    Stripe's own check takes any time in the future; a captured event could then wait for its day.

    Raises: NotBelievedError.
    """
    if not any(_signed_by(secret, text, header) for secret in secrets):
        raise NotBelievedError(
            Refusal.SIGNATURE,
            "None of the platform's webhook secrets made this signature: compare them with the "
            "endpoint's at Stripe.",
        )
    # The signature covers the time, and was good: the time is there.
    at = next(part for part in header.split(",") if part.startswith("t="))
    if abs(at_ms - int(at.split("=", 2)[1]) * SECOND_MS) > TOLERANCE_MS:
        raise NotBelievedError(
            Refusal.TIMESTAMP,
            f"This was signed more than {TOLERANCE_MS // MINUTE_MS} minutes from now: see that the "
            "gateway's clock is right.",
        )


def _signed_by(secret: str, text: str, header: str) -> bool:
    if not header.isascii():  # Stripe's library can't compare these
        return False
    try:
        return bool(stripe.WebhookSignature.verify_header(text, header, secret))
    except stripe.SignatureVerificationError:
        return False


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise _unreadable() from None


def read_event(body: bytes, handled: Collection[str] = HANDLERS) -> Arrived:
    """What an event says.

    Raises: NotBelievedError for what is no JSON or no event.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _unreadable() from None
    if not isinstance(document, dict):
        raise _no_event()
    # What Postgres can't keep, in texts that nobody goes by.
    payload = body.decode() if _ESCAPED_NUL not in body else written(document)
    if document.get("object") == THIN:
        return _thin(document, payload, handled)
    if document.get("object") == "event":
        return snapshot(document, payload, handled)
    raise _no_event()


def written(document: Mapping[str, Any]) -> str:
    """A document as Postgres can keep it. Raises: NotBelievedError for one within one too often."""
    try:
        return orjson.dumps(_without_nul(document)).decode()
    except (RecursionError, orjson.JSONEncodeError):
        raise _unreadable() from None


def snapshot(
    document: Mapping[str, Any], payload: str, handled: Collection[str], source: str = "webhook"
) -> Arrived:
    """An event with its object; `payload` is its JSON. Raises: NotBelievedError."""
    data = document.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    created = document.get("created")
    if not isinstance(about, dict) or type(created) is not int:
        raise _no_event()
    return _arrived(
        document,
        NewEvent(
            event_id=_name(document.get("id")),
            type=_name(document.get("type")),
            object_id=_name_or_none(about.get("id")),
            shape="snapshot",
            source=source,
            payload=payload,
            status="waiting" if document.get("type") in handled else "ignored",
            created_ms=created * SECOND_MS,
        ),
        document.get("account"),
    )


def _thin(document: Mapping[str, Any], payload: str, handled: Collection[str]) -> Arrived:
    about = document.get("related_object")
    kind = _name(document.get("type")).removeprefix(THIN_PREFIX)
    return _arrived(
        document,
        NewEvent(
            event_id=_name(document.get("snapshot_event") or document.get("id")),
            type=kind,
            object_id=_name_or_none(about.get("id")) if isinstance(about, dict) else None,
            shape="thin",
            source="webhook",
            payload=payload,
            status="waiting" if kind in handled else "ignored",
            created_ms=_moment_ms(document.get("created")),
        ),
        document.get("context"),
    )


def _arrived(document: Mapping[str, Any], event: NewEvent, account: object) -> Arrived:
    livemode = document.get("livemode")
    if not isinstance(livemode, bool):
        raise _no_event()
    if event.status == "waiting" and event.object_id is None:
        raise NotBelievedError(
            Refusal.NO_EVENT, f"An event {event.type} is about an object, and this names none."
        )
    return Arrived(event, livemode, _name_or_none(account))


def _check_tenant(arrived: Arrived, settings: StripeSettings) -> None:
    """Events of the other mode, or of an account that is not the platform's, change nothing here.

    Events of the key's own account name none.
    """
    if arrived.livemode != settings.livemode:
        theirs, ours = ("live", "test") if arrived.livemode else ("test", "live")
        raise NotBelievedError(
            Refusal.MODE, f"This is a {theirs} event, and the platform's key is a {ours} key."
        )
    if arrived.account not in {None, settings.stripe_account}:
        raise NotBelievedError(
            Refusal.ACCOUNT, "This event is of a Stripe account that is not the platform's."
        )


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= ID_CHARACTERS_MAX:
        raise _no_event()
    return value


def _name_or_none(value: object) -> str | None:
    return None if value is None else _name(value)


def _moment_ms(value: object) -> int:
    try:
        moment = datetime.fromisoformat(_name(value))
    except ValueError:
        raise _no_event() from None
    if moment.tzinfo is None:
        raise _no_event()
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_NUL, _REPLACEMENT)
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value


def _unknown() -> NotBelievedError:
    return NotBelievedError(Refusal.UNKNOWN, "No platform of this name takes events here.")


def _unreadable() -> NotBelievedError:
    return NotBelievedError(Refusal.UNREADABLE, "The body is no JSON in UTF-8.")


def _no_event() -> NotBelievedError:
    return NotBelievedError(Refusal.NO_EVENT, "The body is no event of Stripe's.")
