"""The half of the random machine that changes accounts, loses shards and rebuilds them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine

from policies.settlement import parse_postings
from tests.support.lua_shard import account_seed, flat, key, model_state
from tests.support.shard_model import ShardModel
from tests.support.shard_model_state import Hold, counter, is_counter
from tests.support.shard_rows import Rows
from tests.support.shard_sums import PARENTS, ROOTS, Sums

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard
    from tests.support.shard_rows import Row

START_US = 1_790_000_000_000_123
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
BIG = 2**50 + 1  # 16 digits: text made with Lua's own %.14g would lose some
ACCOUNTS = (7, 77, 107)
CALLS = [f"{number:032x}" for number in range(12)]
CHANGES = [f"c{number:031x}" for number in range(3)]
LIMITS = [0, 0, 0, 1, 2, 3, 7, 600]
MOMENTS_US = [-DAY_US, -1000, 1000, 5 * SECOND_US, 65 * SECOND_US, 3 * DAY_US]
RULES = [
    *[""] * 3,
    "rs:2",
    "rs:1000000:3 rm:600:5",
    "rm:4 cc:2",
    "cd:30",
    "cd:50 cm:80 ct:120 cs:40",
    "ct:1000 cs:25 cc:3",
    "qm:1 cd:9000000000000000",
    "rm:7 qm:0 cs:0",
]
# Keys may have guards as well.
KEY_RULES = [*RULES, "gv:3", "gv:3 cd:30", "ct:60", "ct:100 cd:90 cs:60 qm:9"]
# Rules of an account's billing period; it ends and the next one does, some days from the start.
PERIOD = f"pw:{START_US // 1000 + 86_400_000}:{START_US // 1000 + 30 * 86_400_000}"
ACCOUNT_RULES = [*RULES, f"qp:3 {PERIOD}", f"qp:5 cd:60 {PERIOD}", "qp:1", "qp:1"]
ACCOUNT_RULES += ["dp:1500", f"cm:90 {PERIOD} dp:500", PERIOD]
FAULTS = ["delete account", "delete account", "lose session", "lose meta", "go back"]
FAULTS += ["close", "close", "close old"]


class AccountsMachine(RuleBasedStateMachine):
    """`model` and `shard` side by side, and `sums` of what must add up."""

    family = 0  # the account that most is about; 0: none

    def __init__(self, shard: LuaShard) -> None:
        super().__init__()
        self.shard = shard
        self.model = ShardModel()
        self.random = Random()
        self.sums = Sums()
        self.rows = Rows(self.random)
        self.epoch_max = 1
        shard.clear()
        self.pass_time(START_US)

    def load_account(self) -> None:
        random, account_id = self.random, self.random.choice(ACCOUNTS)
        numbers = random.sample(range(1, 6), random.randint(0, 4))
        lots = [self.grant_id(account_id, number) for number in numbers]
        facts: dict[str, str | int] = {
            name: random.choice(LIMITS) for name in ("rpm", "rpmonth", "conc")
        }
        facts |= {f"k:{key_id}": self.key_fact() for key_id in random.sample([5, 6], 1)}
        facts["rules"] = random.choice(ACCOUNT_RULES)
        facts |= self.some_counters()
        if random.random() < 0.3:
            facts |= {"month": "202609", "count": random.choice([1, 6])}
        overage = {self.grant_id(account_id, 6): random.choice([0, 5, 40, 1000])}
        fields = account_seed(
            lots={lot: self.lot_amount() for lot in lots},
            overage=overage if random.random() < 0.4 else {},
            settled={lot: random.randint(0, 9) for lot in [*lots, *overage]},
            withdrawn={lot: random.choice([0, 0, 4]) for lot in lots},
            effective_ms={lot: self.moment() for lot in lots},
            expires_ms={lot: random.choice([0, self.moment(), self.moment()]) for lot in lots},
            **facts,
        )
        if random.random() < 0.3:
            self.some_row(account_id, random.choice(list(PARENTS)))
        epoch, seq = self.seen()
        self.load(account_id, epoch, max(seq - random.randint(0, 3), 0), fields)

    def amend(self) -> None:
        account_id, random = self.an_account(), self.random
        fields = {"status": random.choice(["active"] * 8 + ["suspended"])}
        if not self.family or random.random() < 0.2:
            fields[random.choice(["rpm", "rpmonth", "conc"])] = str(random.choice(LIMITS))
            fields[f"k:{random.choice([5, 6])}"] = self.key_fact()
        if not self.family and random.random() < 0.5:
            fields["rules"] = random.choice(ACCOUNT_RULES)
        fields |= self.some_counters()
        for key_id, row in self.rows.of(account_id).items():
            row.revoked = row.revoked or random.random() < 0.1
            if random.random() < 0.7:
                fields[f"k:{key_id}"] = row.text()
            fields[f"p:{key_id}"] = row.share()
        self.count_shares(account_id, fields)
        seen = self.seen()
        reply = self.shard.run("amend", account_id, *seen, *flat(fields))
        self.note("amend", account_id, (*seen, fields), reply)
        assert reply == self.model.amend(account_id, *seen, fields)
        if reply[0] == "OK":
            self.amended(account_id, fields)

    def credit(self) -> None:
        account_id, number = self.random.choice(ACCOUNTS), self.random.randint(1, 6)
        others = self.random.sample(range(1, 7), self.random.randint(0, 6))
        grant_id = self.grant_id(account_id, number)
        lots = [self.grant_id(account_id, lot) for lot in dict.fromkeys([*others, number])]
        order = " ".join(f"{lot}o" if lot % 10 == 6 else str(lot) for lot in lots)
        granted = self.sums.granted.get((account_id, grant_id), 0)
        total = self.random.choice([granted + 10, granted + 10, granted, max(granted - 5, 0), 30])
        taken = (self.random.choice([0, total // 3]), self.random.choice([0, total // 3]))
        times = (self.random.choice([0, self.moment()]), self.moment())
        told = (grant_id, total, *taken, *times, order)
        if self.check("credit", account_id, *self.seen(), *told)[0] in ("OK", "KEPT"):
            self.sums.credited(account_id, grant_id, total)

    def inspect(self) -> None:
        account_id = self.random.choice(ACCOUNTS)
        epoch, seq, fields, holds = self.shard.run("inspect", account_id)
        state = model_state(self.model, ACCOUNTS)
        assert (epoch, seq) == self.model.seen
        assert _pairs(fields) == state["accounts"][account_id]
        assert _pairs(holds) == {
            call_id: hold.text()
            for call_id, hold in self.model.holds.items()
            if isinstance(hold, Hold) and hold.account_id == account_id
        }

    # Shards.

    def restore(self) -> None:
        """A worker tells of its calls, or that it has told all; or the rebuilder puts back some."""
        calls: list[int | str] = []
        worker = self.random.choice(["", "w1", "w2"])
        for call_id, text in self.model.old_holds.items():
            free = isinstance(self.model.holds.get(call_id), Hold | None)
            if free and self.random.random() < 0.6:
                calls += [call_id, text, self.random.choice([0, 1])]
                account = self.model.accounts.get(int(text.split("|")[1]))
                if account and account.epoch == self.model.seen[0]:
                    self.sums.disturbed.add(int(text.split("|")[1]))
        epoch = self.model.seen[0] + self.random.choice([0, 0, 0, 0, 1])
        self.check("restore", 0, epoch, worker, self.random.choice([1000, 30_000]), *calls)

    def open(self) -> None:
        """Mostly after every account was loaded that has holds."""
        if self.model.closed and self.random.random() < 0.8:
            holds = [hold for hold in self.model.holds.values() if isinstance(hold, Hold)]
            for account_id in {hold.account_id for hold in holds}:
                lots = {self.grant_id(account_id, number): 50 for number in (1, 2, 3)}
                self.load(account_id, *self.model.seen, account_seed(lots=lots), fold=True)
        self.check("open", 0, self.model.seen[0] + self.random.choice([0] * 9 + [1]))

    def resume(self) -> None:
        """Somebody connects: mostly to the run of the server that the shard is used on."""
        runs = [self.model.run or "run 1"] * 4
        self.check("resume", 0, self.random.choice([*runs, "run 2", "run 3"]))

    def fault(self) -> None:
        kind = self.random.choice(FAULTS)
        model, client, account_id = self.model, self.shard.client, self.random.choice(ACCOUNTS)
        note(f"{kind} {account_id}")
        if kind == "delete account":
            client.delete(key("account", account_id))
            model.accounts.pop(account_id, None)
            self.sums.disturbed.add(account_id)
            self.sums.forget(account_id)
            if model.meta and self.random.random() < 0.8:
                one_lot = {self.grant_id(account_id, 1): self.lot_amount()}
                self.load(account_id, *model.seen, account_seed(lots=one_lot))
        elif kind == "lose session":
            client.delete(key("session", account_id, "s1"))
            model.sessions.pop((account_id, "s1"), None)
            self.sums.session_lost(account_id, "s1")
        elif not model.meta or kind == "close":
            self.epoch_max += 1
            self.check("close", 0, self.epoch_max, model.seen[0])
            self.sums.rebuilt()
            if self.random.random() < 0.3:
                self.open()
                self.load_all()
        elif kind == "lose meta":
            client.delete(key("meta"))
            model.meta = model.run = None
        elif kind == "go back" and not model.closed:
            epoch, seq = model.seen
            client.hset(key("meta"), "seq", seq // 2)
            model.meta = (epoch, seq // 2)
        elif kind == "close old":
            # Somebody who saw an older loss, or none: what is live must stay.
            self.epoch_max += 1
            self.check("close", 0, self.epoch_max, model.seen[0] - 1)

    # What they are made of.

    def check(
        self,
        script: str,
        account_id: int,
        *arguments: Any,
        session: str = "",
        told: bool = False,  # the model's method takes the session too, as admit's last argument
    ) -> Any:
        of_account = (account_id,) if account_id else ()
        reply = self.shard.run(script, account_id, *arguments, session=session)
        self.note(script, account_id, arguments, reply)
        names = {"session": session} if told and script != "admit" else {}
        method = getattr(self.model, "raise_hold" if script == "raise" else script)
        assert reply == method(*of_account, *arguments, **names)
        return reply

    def load(
        self,
        account_id: int,
        epoch: int,
        seq: int,
        fields: dict[str, str],
        *,
        fold: bool | None = None,
    ) -> None:
        """Load an account, mostly with its live holds folded in, as a rebuild does."""
        force = int(self.random.random() < 0.4)
        fields = seeded = fields | self.rows.seeds(account_id, fields)
        holds = [hold for hold in self.model.holds.values() if isinstance(hold, Hold)]
        holds = [hold for hold in holds if hold.account_id == account_id]
        folded = self.random.random() < 0.8 if fold is None else fold
        if folded:
            fields = _fold(fields, holds)
        reply = self.shard.run("load", account_id, epoch, seq, force, *flat(fields))
        self.note("load", account_id, (epoch, seq, force, fields), reply)
        assert reply == self.model.load(account_id, epoch, seq, force, fields)
        if reply[0] == "OK":
            self.sums.loaded(account_id, fields)
            self.sums.families.loaded(account_id, seeded, fields)
            for name in {place.partition("@")[0] for hold in holds for place in hold.counted}:
                if name.endswith(".ct") and name not in fields and name[0] == "K":
                    self.sums.uncapped(account_id, int(name[1:-3]), running=True)
            held = {posting.grant_id for hold in holds for posting in hold.allocation}
            if not holds or (folded and all(f"a:{grant_id}" in fields for grant_id in held)):
                self.sums.disturbed.discard(account_id)
            else:
                self.sums.disturbed.add(account_id)

    def load_all(self) -> None:
        """Two lots, of which the first expires soon; one lot for a while; limits and overage."""
        now_ms = self.model.now_ms
        soon, later = now_ms + 1000, now_ms + 65_000
        limits = {name: self.random.choice(LIMITS) for name in ("rpm", "rpmonth", "conc")}
        rules = [self.random.choice(ACCOUNT_RULES) for _ in ACCOUNTS]
        keys = [self.key_fact() for _ in ACCOUNTS]
        seeds = [
            account_seed(
                lots={71: 40, 72: 20},
                expires_ms={71: later},
                **{"k:5": keys[0], "rules": rules[0]},
            ),
            account_seed(
                lots={771: 40},
                overage={776: 60},
                effective_ms={771: soon},
                expires_ms={771: later},
                **{"k:5": keys[1], "rules": rules[1]},
            ),
            account_seed(lots={1071: BIG}, **limits, **{"k:5": keys[2], "rules": rules[2]}),
        ]
        for account_id, fields in zip(ACCOUNTS, seeds, strict=True):
            self.load(account_id, *self.model.seen, fields)

    def some_counters(self) -> dict[str, str]:
        if self.random.random() < 0.7:
            return {}
        day_end_ms = (self.model.now_ms // 86_400_000 + 1) * 86_400_000
        return {
            self.random.choice(["A.cd", "K5.cd", "R2.cd"]): f"{day_end_ms}:5",
            self.random.choice(["A.ct", "K5.ct", "A.qm"]): "0:7",
            "u:2:token": f"{self.random.choice([START_US // 1000 + 86_400_000, day_end_ms])}:900",
        }

    def key_fact(self) -> str:
        expired = [str(START_US // 1000 + 60_000), "5000", "-1"]
        state = self.random.choice(["0"] * 20 + expired)
        return f"{state} {self.random.choice(KEY_RULES)}".strip()

    def an_account(self) -> int:
        if self.family and self.random.random() < 0.8:
            return self.family
        return self.random.choice(ACCOUNTS)

    def some_row(self, account_id: int, key_id: int) -> Row | None:
        """A delegated key that is new to Postgres, unless it is there or its parent is not."""
        account = self.model.accounts.get(account_id)
        known = account is not None and f"k:{key_id}" in account.facts
        if self.rows.get(account_id, key_id) or known or self.runs(account_id, key_id):
            return None
        return self.rows.add(account_id, key_id, self.model.now_ms)

    def runs(self, account_id: int, key_id: int) -> bool:
        """Whether a call of this key runs, or may be told to run by who rebuilds the shard."""
        texts = [hold.text() for hold in self.model.holds.values() if isinstance(hold, Hold)]
        for text in [*texts, *self.model.old_holds.values()]:
            parts = text.split("|", 8)
            if (int(parts[1]), int(parts[8].split(",")[2])) == (account_id, key_id):
                return True
        return False

    def count_shares(self, account_id: int, fields: dict[str, str]) -> None:
        """A key's cap in total that is new counts what was carved out of the key before."""
        for root in ROOTS:
            name = f"K{root}.ct"
            if name in fields or "ct:" in fields.get(f"k:{root}", ""):
                fields[name] = f"0:{7 + self.rows.carved(account_id, root)}"

    def amended(self, account_id: int, fields: dict[str, str]) -> None:
        for name, text in fields.items():
            if name[:2] == "k:":
                key_id = int(name[2:])
                self.sums.families.amended(account_id, key_id, text)
                if "ct:" not in text:
                    holds = [h for h in self.model.holds.values() if isinstance(h, Hold)]
                    mine = [hold for hold in holds if hold.account_id == account_id]
                    running = any(f"K{key_id}.ct@0" in hold.counted for hold in mine)
                    self.sums.uncapped(account_id, key_id, running=running)

    def seen(self) -> tuple[int, int]:
        """What the caller says it has seen: mostly the truth, else nothing, or more than is."""
        epoch, seq = self.model.seen if self.model.meta else (1, 0)
        odd = [(0, 0), (epoch + 1, 0), (epoch, seq + 1), (epoch, seq // 2)]
        return self.random.choice(odd) if self.random.random() < 0.08 else (epoch, seq)

    def grant_id(self, account_id: int, number: int) -> int:
        """A lot whose number is 6 is one of overage."""
        return account_id * 10 + number

    def lot_amount(self) -> int:
        return self.random.choice([0, 1, 6, 20, 30, 1000, BIG])

    def moment(self) -> int:
        return (self.model.now_us + self.random.choice(MOMENTS_US)) // 1000

    def pass_time(self, now_us: int) -> None:
        self.shard.set_clock(now_us)
        self.model.now_us = now_us

    def note(self, script: str, account_id: int, arguments: Any, reply: Any) -> None:
        note(f"{script} {account_id or ''} {arguments} -> {reply}")


def _fold(fields: dict[str, str], holds: list[Hold]) -> dict[str, str]:
    """The fields of a load with these holds in them; what a lot holds comes on top of the rest."""
    folded = dict(fields)
    folded["running"] = str(len(holds))
    for hold in holds:
        for grant_id, part in parse_postings(hold.allocation_text):
            if f"a:{grant_id}" in fields:
                name = f"h:{grant_id}"
                folded[name] = str(int(folded.get(name, "0")) + part)
        for place in hold.counted:
            name, _, end = place.partition("@")
            if name.endswith(".cc"):
                folded[name] = str(int(folded.get(name, "0")) + 1)
            elif is_counter(name) and (name in folded or not _is_past(folded, name)):
                kept = counter(folded.get(name))
                if kept.end_ms <= int(end):
                    kept = kept.at(int(end))
                    folded[name] = str(kept._replace(used=kept.used + hold.held))
    return folded


def _is_past(fields: dict[str, str], name: str) -> bool:
    """Whether this counts for the cap in total of a key that has none any more."""
    key_id, _, kind = name[1:].partition(".")
    return name[0] == "K" and kind == "ct" and "ct:" not in fields.get(f"k:{key_id}", "")


def _pairs(flattened: list[str]) -> dict[str, str]:
    return dict(zip(flattened[::2], flattened[1::2], strict=True))
