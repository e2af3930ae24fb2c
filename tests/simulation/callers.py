"""Calls: what the proxy's handler does with one, step by step, without HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gateway.counters import CountersUnavailable
from gateway.errors import Refusal
from gateway.ledger import LedgerUnavailable
from gateway.proxy.admission import Quest
from gateway.proxy.hold import Hold
from gateway.proxy.live import HELD
from policies.catalog import Ending
from policies.decision import (
    AccountSuspended,
    Admitted,
    HoldGone,
    InsufficientCredits,
    KeyRefused,
    Raised,
    ShardLost,
)
from policies.meters.reading import NOTHING_READ, Reading
from tests.simulation.model import Account, Call, Tariff, Violation

if TYPE_CHECKING:
    from random import Random

    from tests.simulation.cast import Worker
    from tests.simulation.world import World

TARIFFS = (
    Tariff("fixed", per_request=250_000, per_unit=0, reserve_units=0, streams=False),
    Tariff("metered", per_request=1_000, per_unit=700, reserve_units=500, streams=False),
    Tariff("stream", per_request=5_000, per_unit=900, reserve_units=1_000, streams=True),
    Tariff(
        "greedy", per_request=0, per_unit=1_100, reserve_units=100, streams=False, overshoots=True
    ),
    Tariff("raised", 2_000, per_unit=800, reserve_units=200, streams=True, raises=True),
    Tariff(
        "tiered",
        per_request=1_000,
        per_unit=900,
        reserve_units=300,
        streams=False,
        tiers=((2_000, 900), (5_000, 500), (None, 700)),
    ),
    Tariff("trusted", 40_000, per_unit=0, reserve_units=0, streams=False, trust=200_000),
)
# How long an agent works, s; streams, and those beyond a lease, are renewed meanwhile.
WORK_S = (0.0, 0.0, 0.0, 0.003, 0.003, 0.02, 0.02, 0.2, 0.2, 1.0, 4.0, 15.0)
PAUSES_S = (0.0, 0.0, 0.0, 0.001, 0.05, 0.3)
CHUNKS = 5
# What a client waits that was refused.
COME_AGAIN_S = 0.5
SESSIONS = ("", "", "", "s-1-{}", "s-2-{}")


@dataclass(frozen=True, slots=True)
class Client:
    """An API key in the hand of somebody."""

    account: Account
    key_id: int
    text: bytes


class Meter:
    """What was read of a stream so far, as `CallMeter` says it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.read = 0

    def reading(self, _elapsed_ms: int) -> Reading:
        """What is read by now; whoever asks writes it down as a checkpoint."""
        self._call.due_max = max(self._call.due_max, self._call.tariff.cost(self.read))
        return Reading((self.read,))


class Running:
    """A call under way, as the registry of live calls knows it (`LiveCall`)."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.stage = HELD
        self.rounds = 0
        self.meter: Meter | None = None

    def elapsed_ms(self) -> int:
        """Nothing here is priced by time."""
        return 0


class Caller:
    """Makes one call after the other on one worker, until that dies or calls are to rest."""

    def __init__(self, world: World, worker: Worker, clients: list[Client]) -> None:
        self.world = world
        self.worker = worker
        self.clients = clients
        self.random: Random = world.random
        self.refused = False  # the last call was

    async def run(self) -> None:
        """Call, pause, call."""
        while True:
            await asyncio.sleep(self.random.choice(PAUSES_S))
            if not self.world.resting and self.worker.ready and not self.worker.unready():
                await self.call()
                if self.refused:
                    await asyncio.sleep(COME_AGAIN_S)

    async def call(self) -> None:
        """One call, whose record the model keeps."""
        random = self.random
        self.refused = False
        client = random.choice(self.clients)
        tariff = random.choice(TARIFFS)
        # A session is forgotten after a day without a call.
        session = random.choice(SESSIONS).format(self.world.leaps)
        call = Call(
            call_id=new_call_id(self.world, self.worker.process.clock_offset_ms),
            account_id=client.account.account_id,
            key_id=client.key_id,
            session=session,
            tariff=tariff,
            process=self.worker.process,
            shard=client.account.shard,
            asked_step=self.world.steps,
        )
        try:
            authenticator = self.worker.authenticator
            principal = authenticator.known(client.text)
            if principal is None:
                principal = await authenticator.look_up(client.text)
        except LedgerUnavailable:
            return
        assert principal is not None
        offer = self.worker.offer(principal.platform_id, tariff.name)
        assert offer.terms.ceiling == tariff.ceiling
        self.world.model.ask(call)
        decision = await self.admit(call, principal, offer)
        if isinstance(decision, CountersUnavailable) and await self.trust(call, principal, offer):
            return
        if not isinstance(decision, Admitted):
            call.refused = self.refused = True
            self.world.model.note(f"denied {type(decision).__name__}")
            if isinstance(decision, InsufficientCredits) and client.account.rich:
                raise Violation(f"a rich account was refused: {decision} {call}")
            if isinstance(decision, KeyRefused | AccountSuspended):
                principal.usable_until_ms = 0
            return
        call.admitted_ms, call.held = decision.admitted_ms, tariff.ceiling
        running = Running(Hold(call.call_id, principal, offer, decision, session, offer.terms))
        self.worker.calls[call.call_id] = running
        await self.serve(call, running)

    async def admit(self, call: Call, principal: Any, offer: Any) -> Any:
        """The decision, or the failure that the client would be told."""
        admission = self.worker.admission
        session = call.session.encode()
        quest = Quest(call.call_id, principal, cast("Any", None), offer, session, None)
        try:
            decision = await admission.admit(quest, offer.terms)
        except CountersUnavailable as failure:
            return failure
        if type(decision) is Admitted:
            return decision
        again = await admission.again(admission.admit, quest, None, offer.terms, decision)
        return again if isinstance(again, Refusal) else again[1]

    async def serve(self, call: Call, running: Running) -> None:
        """Mark it, send it on, read what comes, and end it."""
        random, tariff, worker = self.random, call.tariff, self.worker
        if random.random() < 0.1:
            await asyncio.sleep(random.choice(WORK_S))
            call.voided = True
            await worker.settler.void(running.hold)
            call.told = True
            return
        try:
            await worker.mark(running)
        except CountersUnavailable:
            await worker.settler.void(running.hold)
            call.voided = call.told = True
            return
        call.dispatched = True
        units = random.randint(0, tariff.reserve_units)
        if tariff.overshoots and random.random() < 0.3:
            units *= 3
        ending, status = random.choice(ENDINGS)
        if tariff.raises:
            units *= random.choice((1, 3, 9))
        if tariff.streams:
            passed = await self.stream(call, running, units)
            if passed < units:
                units, ending = passed, Ending.EXHAUSTED
        else:
            await asyncio.sleep(random.choice(WORK_S))
        if ending in PAID:
            call.owes(units)
        else:
            call.owed = 0
        reading = Reading((units,)) if tariff.per_unit else NOTHING_READ
        receipt = await worker.settler.settle(running.hold, ending, status, reading)
        call.told = True
        call.told_charged = receipt.charged_microcredits
        call.uncertain = receipt.remaining_microcredits is None

    async def trust(self, call: Call, principal: Any, offer: Any) -> bool:
        """Redis is away: run the call without a hold, if the route allows it."""
        trust, tariff = self.worker.trust, call.tariff
        hold = None
        if tariff.trust:
            hold = trust.admit(principal, offer, offer.terms, call.call_id, call.session)
        if hold is None:
            return False
        call.admitted_ms = hold.admitted.admitted_ms
        call.trusted = call.dispatched = call.uncertain = True
        await asyncio.sleep(self.random.choice(WORK_S))
        call.owes(0)
        receipt = await trust.settle(hold, Ending.COMPLETED, 200, NOTHING_READ)
        call.told = True
        call.told_charged = receipt.charged_microcredits
        return True

    async def stream(self, call: Call, running: Running, units: int) -> int:
        """Units come bit by bit; renewals write down how many there are. How many have passed."""
        meter = running.meter = Meter(call)
        for part in range(1, CHUNKS + 1):
            await asyncio.sleep(self.random.choice(WORK_S) / 2)
            by_now = units * part // CHUNKS
            if call.tariff.raises and not await self.covered(call, running, by_now):
                break
            meter.read = by_now
        return meter.read

    async def covered(self, call: Call, running: Running, units: int) -> bool:
        """Whether a stream may go on to so many units; its hold is raised for them if need be."""
        hold, cost = running.hold, call.tariff.cost(units)
        if cost <= hold.held:
            return True
        keys, key_id = hold.principal.keys, hold.principal.key_id
        target = cost + self.random.choice((0, 50_000, 400_000))
        try:
            decision = await self.worker.counters.raise_hold(
                keys, call.call_id, key_id, cost, target, call.session, hold.offer.rules
            )
        except CountersUnavailable:
            return True
        self.world.model.note(f"raise {type(decision).__name__}")
        if isinstance(decision, Raised):
            call.held = max(call.held, decision.held)
            running.hold = hold.raised(decision.held, decision.allocation, decision.counted)
        if (
            isinstance(decision, InsufficientCredits)
            and self.world.model.accounts[call.account_id].rich
        ):
            raise Violation(f"a rich account can't go on: {decision} {call}")
        return isinstance(decision, Raised | HoldGone | ShardLost)


ENDINGS = (
    (Ending.COMPLETED, 200),
    (Ending.COMPLETED, 200),
    (Ending.COMPLETED, 200),
    (Ending.CLIENT_DISCONNECT, 200),
    (Ending.UPSTREAM_ERROR, 502),
)
PAID = frozenset({Ending.COMPLETED, Ending.CLIENT_DISCONNECT, Ending.EXHAUSTED})


def new_call_id(world: World, offset_ms: int) -> str:
    """A UUIDv7 of this moment, by a clock that is off."""
    bits = world.random.getrandbits
    return f"{world.now_ms() + offset_ms:012x}7{bits(12):03x}{bits(62) | 0x2 << 62:016x}"
