"""Makes up settled calls in the order in which they were settled, with all the sums over them.

Pure: numbers in, lines for COPY out, a chunk at a time. Everything that grows with the number of
calls leaves with each chunk; what stays is one number per lot, and per account and day.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOUR_MS = 3_600_000
HOURS_OF_DAY = 24
DAY_MS = HOURS_OF_DAY * HOUR_MS
CHUNK_ROWS = 50_000
# Of a call: most take a second or two, some run for hours.
DURATION_MS_MAX = 4_000
LONG_DURATION_MS_MAX = 6 * HOUR_MS
LONG_SHARE = 0.001
SECOND_LOT_SHARE = 0.05
SESSION_SHARE = 0.05
ENDINGS = (
    # share in a thousand, ending, status, whether it is charged
    (920, "completed", 200, True),
    (30, "client_error", 400, False),
    (20, "upstream_error", 502, False),
    (10, "upstream_timeout", 504, False),
    (15, "client_disconnect", 200, True),
    (4, "exhausted", 200, True),
    (1, "unknown", 0, True),
)
TOKENS_MAX = 4_000
MICROCREDITS_PER_TOKEN = 10
# Large accounts, keys and routes have most of the calls, as they have everywhere.
ACCOUNT_SKEW = 0.7
KEY_SKEW = 3
ROUTE_SKEW = 1.0


class Account(NamedTuple):
    """Who calls: an account, its keys, its lots."""

    account_id: int
    keys: Sequence[int]
    lots: Sequence[int]


class SoldRoute(NamedTuple):
    """What is called."""

    route_id: int
    price_version: int


class Chunk(NamedTuple):
    """Lines for COPY, by table."""

    calls: int
    settlements: bytes
    ledger_entries: bytes
    usage_hourly: bytes
    usage_routes_hourly: bytes
    usage_parts_daily: bytes


# calls, completed, held, charged
Sums = list[int]


class Calls:
    """The calls of a platform over a time, and what they add up to once all are made."""

    def __init__(
        self,
        platform_id: int,
        accounts: Sequence[Account],
        routes: Sequence[SoldRoute],
        *,
        count: int,
        from_ms: int,
        until_ms: int,
        seed: int,
    ) -> None:
        self._platform_id, self._accounts, self._routes = platform_id, accounts, routes
        self._count, self._from_ms, self._span_ms = count, from_ms, until_ms - from_ms
        self._chance = random.Random(seed)
        self.settled_of_lot: dict[int, int] = defaultdict(int)
        self.accounts_daily: dict[tuple[int, int], Sums] = defaultdict(lambda: [0] * 4)
        self.routes_daily: dict[tuple[int, int], Sums] = defaultdict(lambda: [0] * 4)
        self._hour = -1
        self._of_hour: dict[tuple[int, int, int], Sums] = {}
        self._settlements: list[str] = []
        self._entries: list[str] = []
        self._of_day: dict[tuple[int, str, int], Sums] = defaultdict(lambda: [0] * 4)
        self._hourly: list[str] = []
        self._routes_hourly: list[str] = []
        self._parts_daily: list[str] = []

    def chunks(self) -> Iterator[Chunk]:
        """All of them."""
        weights = list(
            itertools.accumulate((n + 1) ** -ACCOUNT_SKEW for n in range(len(self._accounts)))
        )
        route_weights = list(
            itertools.accumulate((n + 1) ** -ROUTE_SKEW for n in range(len(self._routes)))
        )
        ending_weights = list(itertools.accumulate(share for share, *_ in ENDINGS))
        for start in range(0, self._count, CHUNK_ROWS):
            rows = min(CHUNK_ROWS, self._count - start)
            choices = self._chance.choices
            drawn = zip(
                range(start, start + rows),
                choices(self._accounts, cum_weights=weights, k=rows),
                choices(self._routes, cum_weights=route_weights, k=rows),
                choices(ENDINGS, cum_weights=ending_weights, k=rows),
                strict=True,
            )
            for number, account, route, ending in drawn:
                self._call(number, account, route, ending)
            if start + rows == self._count:
                self._end_hour(-1)
            yield Chunk(
                rows,
                _taken(self._settlements),
                _taken(self._entries),
                _taken(self._hourly),
                _taken(self._routes_hourly),
                _taken(self._parts_daily),
            )

    def _call(
        self,
        number: int,
        account: Account,
        route: SoldRoute,
        ending: tuple[int, str, int, bool],
    ) -> None:
        chance, bits = self._chance.random, self._chance.getrandbits
        settled_ms = self._from_ms + self._span_ms * number // self._count
        longest = LONG_DURATION_MS_MAX if chance() < LONG_SHARE else DURATION_MS_MAX
        admitted_ms = settled_ms - int(longest * chance())
        call_id = f"{admitted_ms:012x}7{bits(12):03x}8{bits(60):015x}"
        _, word, status, is_charged = ending
        tokens = 1 + int(TOKENS_MAX * chance())
        held = TOKENS_MAX * MICROCREDITS_PER_TOKEN
        charged = tokens * MICROCREDITS_PER_TOKEN if is_charged else 0
        key_id = account.keys[int(len(account.keys) * chance() ** KEY_SKEW)]
        session = f"s-{bits(16)}" if chance() < SESSION_SHARE else ""
        settled_at = moment(settled_ms)
        self._settlements.append(
            f"{call_id}\t{self._platform_id}\t{account.account_id}\t{key_id}\t{route.route_id}\t"
            f"{route.price_version}\t{moment(admitted_ms)}\t{settled_at}\t{word}\t{status}\t"
            f"token={tokens}\t\t{held}\t{charged}\t0\t{session}"
        )
        first = charged // 2 if chance() < SECOND_LOT_SHARE else charged
        for lot, amount in zip(account.lots, (first, charged - first), strict=False):
            if amount:
                self.settled_of_lot[lot] += amount
                self._entries.append(
                    f"{self._platform_id}\t{account.account_id}\t{lot}\t{call_id}\tsettle\t"
                    f"{-amount}\t{settled_at}"
                )
        if settled_ms // HOUR_MS != self._hour:
            self._end_hour(settled_ms // HOUR_MS)
        cell = (account.account_id, route.route_id, key_id)
        sums = self._of_hour.get(cell)
        if sums is None:
            self._of_hour[cell] = [1, word == "completed", held, charged]
        else:
            sums[0] += 1
            sums[1] += word == "completed"
            sums[2] += held
            sums[3] += charged

    def _end_hour(self, next_hour: int) -> None:
        """Put the sums of the hour that is over where they belong."""
        hour, day = self._hour, self._hour // HOURS_OF_DAY
        by_route: dict[int, Sums] = defaultdict(lambda: [0] * 4)
        for (account_id, route_id, key_id), sums in self._of_hour.items():
            self._hourly.append(
                f"{self._platform_id}\t{account_id}\t{moment(hour * HOUR_MS)}\t{route_id}\t{key_id}"
                f"\t{columns(sums)}"
            )
            for total in (
                by_route[route_id],
                self._of_day[account_id, "false", route_id],
                self._of_day[account_id, "true", key_id],
                self.accounts_daily[day, account_id],
                self.routes_daily[day, route_id],
            ):
                for place, amount in enumerate(sums):
                    total[place] += amount
        self._routes_hourly += [
            f"{self._platform_id}\t{moment(hour * HOUR_MS)}\t{route_id}\t{columns(sums)}"
            for route_id, sums in by_route.items()
        ]
        self._of_hour.clear()
        self._hour = next_hour
        if next_hour // HOURS_OF_DAY != day:
            self._parts_daily += [
                f"{self._platform_id}\t{account_id}\t{moment(day * DAY_MS)}\t{is_key}\t{part_id}\t"
                f"{columns(sums)}"
                for (account_id, is_key, part_id), sums in self._of_day.items()
            ]
            self._of_day.clear()


def columns(sums: Sums) -> str:
    """The five measures of a roll-up; nothing here stays uncollected."""
    calls, completed, held, charged = sums
    return f"{calls}\t{completed:d}\t{held}\t{charged}\t0"


_seconds: dict[int, str] = {}


def moment(moment_ms: int) -> str:
    """A time as Postgres reads it."""
    second, ms = divmod(moment_ms, 1_000)
    text = _seconds.get(second)
    if text is None:
        if len(_seconds) > CHUNK_ROWS:
            _seconds.clear()
        text = _seconds[second] = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}"
    return f"{text}.{ms:03d}+00"


def _taken(rows: list[str]) -> bytes:
    """The lines of a chunk, which are gone from the list then."""
    lines = "".join(f"{row}\n" for row in rows).encode()
    rows.clear()
    return lines
