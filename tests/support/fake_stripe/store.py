"""The objects of one mode, as plain JSON: kept as sent, private names (`_…`) never shown.

One object refers to another by its id. What Stripe always shows whole (a price in a subscription's
item) is filled in when an object is shown (`EMBEDDED`), so that it is never out of date; what it
shows only when asked (`expand`) is either an id to follow or, in `INCLUDED`, a list to make.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from . import events
from .errors import invalid, no_such

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .clock import Agenda, Clock
    from .deliveries import Deliveries
    from .dunning import Dunning

Object = dict[str, Any]

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
EXPAND_DEPTH_MAX = 4
ID_CHARACTERS = 24

# In an object of the first name, the field of the second is shown whole, not as an id.
EMBEDDED: dict[str, tuple[str, ...]] = {}
# What else becomes of an object of a kind when it is shown, for what is worked out each time.
SHOWN: dict[str, Callable[[Store, Object], None]] = {}
# What (kind, field) shows when it is asked for by `expand`, and not before.
INCLUDED: dict[tuple[str, str], Callable[[Store, Object], Any]] = {}


class Ids:
    """Makes ids that look as Stripe's: the same seed makes the same ones."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.made = 0

    def make(self, prefix: str) -> str:
        """A new id, such as `cus_4fX…`."""
        self.made += 1
        number = int.from_bytes(hashlib.sha256(f"{self.seed}:{self.made}".encode()).digest())
        characters = []
        for _ in range(ID_CHARACTERS):
            number, digit = divmod(number, len(ALPHABET))
            characters.append(ALPHABET[digit])
        return f"{prefix}_{''.join(characters)}"


class Store:
    """All objects of test or of live mode, by kind and id, in the order they were made."""

    def __init__(
        self,
        *,
        livemode: bool,
        clock: Clock,
        agenda: Agenda,
        ids: Ids,
        deliveries: Deliveries,
        dunning: Dunning,
    ) -> None:
        self.livemode = livemode
        self.clock = clock
        self.agenda = agenda
        self.deliveries = deliveries
        self.dunning = dunning
        self.tables: dict[str, dict[str, Object]] = {}
        self.ids = ids
        self._updating: set[str] = set()
        # The call that is being answered, named by the events that it makes.
        self.request: Object = {"id": None, "idempotency_key": None}
        # Which kind of parent prorated lines have: API versions differ, receivers must not care.
        self.proration_parent: Literal["subscription_item_details", "invoice_item_details"] = (
            "subscription_item_details"
        )

    @property
    def now_s(self) -> int:
        return self.clock.now_s

    @property
    def account_id(self) -> str:
        """Whose objects these are: each fake is another account, with one seed the same one."""
        return f"acct_{hashlib.sha256(self.ids.seed.encode()).hexdigest()[:16]}"

    def make_id(self, prefix: str) -> str:
        """A new id."""
        return self.ids.make(prefix)

    def add(self, kind: str, prefix: str, fields: Object) -> Object:
        """Keeps a new object: its id, kind, time and mode are put before `fields`."""
        made: Object = {
            "id": self.make_id(prefix),
            "object": kind,
            "created": self.now_s,
            "livemode": self.livemode,
        }
        return self.keep(made | fields)

    def keep(self, made: Object) -> Object:
        """Keeps a new object that is whole, its id too."""
        self.tables.setdefault(made["object"], {})[made["id"]] = made
        return made

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind, oldest first, deleted ones left out."""
        return [o for o in self.tables.get(kind, {}).values() if not o.get("_deleted")]

    def find(self, object_id: str) -> Object | None:
        """An object of any kind by its id, deleted or not."""
        for table in self.tables.values():
            if object_id in table:
                return table[object_id]
        return None

    def get(self, kind: str, object_id: str, param: str | None = None) -> Object:
        """The object of this kind and id.

        Raises: StripeError, 404, or 400 when `param` says that the id came as a parameter.
        """
        found = self.tables.get(kind, {}).get(object_id)
        if found is None or found.get("_deleted"):
            raise no_such(kind, object_id, param or "id", status=400 if param else 404)
        return found

    def due(self, at_s: int, what: str, object_id: str) -> None:
        """Has `what` looked at when the clock gets there (see `resources.DUE`)."""
        self.agenda.add(at_s, what, object_id, livemode=self.livemode)

    def emit(self, event_type: str, obj: Object, previous: Object | None = None) -> Object:
        """Makes the event that something happened to an object, and hands it to deliveries."""
        event = events.make(self, event_type, obj, previous)
        self.deliveries.take(self, event)
        return event

    @contextmanager
    def updating(self, obj: Object, event_type: str | None = None) -> Iterator[Object]:
        """Emits `<kind>.updated` with what was before, if the body changed anything shown.

        Of updates of one object within each other, the outermost tells of them all.
        """
        if obj["id"] in self._updating:
            yield obj
            return
        self._updating.add(obj["id"])
        before = self.show(obj)
        try:
            yield obj
        finally:
            told = obj["id"] not in self._updating
            self._updating.discard(obj["id"])
        if told:
            return
        after = self.show(obj)
        previous = events.differences(before, after)
        if previous:
            self.emit(event_type or f"{events.topic(obj)}.updated", obj, previous)

    def told(self, obj: Object) -> None:
        """Another event has told what became of the object: the update it is in shall not."""
        self._updating.discard(obj["id"])

    def show(self, obj: Object) -> Object:
        """An object as Stripe shows it, nothing expanded."""
        shown: Object = _public(obj)
        # An event holds its object as it was then.
        if shown.get("object") != "event":
            self._embed(shown)
        return shown

    def _embed(self, value: Any) -> None:
        if isinstance(value, list):
            for each in value:
                self._embed(each)
        # Of what is deleted nothing is left to show but that it is.
        if not isinstance(value, dict) or value.get("deleted"):
            return
        kind = str(value.get("object"))
        if kind in SHOWN and "id" in value:
            SHOWN[kind](self, value)
        for field in EMBEDDED.get(kind, ()):
            if isinstance(value.get(field), str):
                found = self.find(value[field])
                value[field] = None if found is None else self.show(found)
        for each in value.values():
            self._embed(each)

    def expand(self, shown: Object, paths: list[str]) -> Object:
        """Puts whole objects in the place of their ids, along paths such as `data.customer`."""
        for path in paths:
            steps = path.split(".")
            # Going through a list is no level.
            if len([step for step in steps if step != "data"]) > EXPAND_DEPTH_MAX:
                raise invalid("You cannot expand more than 4 levels of a property", "expand")
            self._expand(shown, steps, path)
        return shown

    def _expand(self, shown: Any, steps: list[str], path: str) -> None:
        if isinstance(shown, list):
            for each in shown:
                self._expand(each, steps, path)
            return
        if not steps or not isinstance(shown, dict):
            return
        field = steps[0]
        include = INCLUDED.get((str(shown.get("object")), field))
        if include is not None and shown.get(field) is None:
            owner = self.find(shown["id"])
            shown[field] = None if owner is None else include(self, owner)
        elif field not in shown:
            raise invalid(
                f"This property cannot be expanded ({path}).", "expand", "expansion_not_allowed"
            )
        elif isinstance(shown[field], str):
            shown[field] = self._whole(shown[field], path)
        elif isinstance(shown[field], list):
            shown[field] = [
                self._whole(each, path) if isinstance(each, str) else each for each in shown[field]
            ]
        self._expand(shown[field], steps[1:], path)

    def _whole(self, object_id: str, path: str) -> Object:
        found = self.find(object_id)
        if found is None:
            raise invalid(f"This property cannot be expanded ({path}).", "expand")
        if found.get("_deleted"):
            return {"id": found["id"], "object": found["object"], "deleted": True}
        return self.show(found)


def _public(value: Any) -> Any:
    """A copy without private names. Metadata is the caller's own, whatever its names."""
    if isinstance(value, dict):
        return {
            key: dict(each) if key == "metadata" and isinstance(each, dict) else _public(each)
            for key, each in value.items()
            if not key.startswith("_")
        }
    if isinstance(value, list):
        return [_public(each) for each in value]
    return value


def merge_metadata(old: dict[str, str], new: dict[str, str] | None) -> dict[str, str]:
    """Metadata after an update: names are added, replaced, or deleted by an empty value."""
    if new is None:
        return {}
    merged = old | new
    return {key: value for key, value in merged.items() if value != ""}
