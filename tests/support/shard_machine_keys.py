"""The part of the random machine that carves keys out of keys, ends them, and gives back."""

from __future__ import annotations

from tests.support.lua_shard import account_seed, key
from tests.support.shard_machine_accounts import ACCOUNTS, AccountsMachine
from tests.support.shard_sums import PARENTS

SOME_RULES = ["", "", "cd:90", "cs:60 cc:3", "gv:3", "rm:40"]


class KeysMachine(AccountsMachine):
    """Says of keys what their rows say; the rows that were not carved are ended, mostly."""

    def begin_family(self) -> None:
        """An account of few limits whose key has a cap in total, and keys carved out of it."""
        self.family = self.random.choice(ACCOUNTS)
        lots = {self.grant_id(self.family, 1): 1000}
        root = f"0 ct:{self.random.choice([100, 160, 1000])} {self.random.choice(SOME_RULES)}"
        seed = account_seed(lots=lots, **{"k:5": root.strip(), "K5.ct": "0:0"})
        self.shard.client.delete(key("account", self.family))
        self.model.accounts.pop(self.family)
        self.sums.forget(self.family)
        self.load(self.family, *self.model.seen, seed)
        for key_id, budget in ((51, 100), (511, 60), (52, 40), (5111, 40), (51111, 20)):
            if self.random.random() < 0.9:
                self.rows.add(self.family, key_id, self.model.now_ms, budget)
                self.carve_key(self.family, key_id)

    def carve(self) -> None:
        key_id = self.random.choice([51, 51, 51, 52, 61, 511, 511, *PARENTS])
        self.carve_key(self.an_account(), key_id)

    def carve_key(self, account_id: int, key_id: int) -> None:
        row = self.rows.get(account_id, key_id) or self.some_row(account_id, key_id)
        if row is None:
            return
        told = (row.parent_id, key_id, row.budget, row.text())
        reply = self.check("carve", account_id, *self.seen(), *told)
        if reply[0] == "OK":
            self.sums.families.carved(account_id, row.parent_id, key_id, row.budget)
        elif self.random.random() < 0.5:
            row.revoked = True

    def giveback(self) -> None:
        random, account_id = self.random, self.an_account()
        key_id = random.choice([*self.rows.of(account_id), random.choice(list(PARENTS))])
        free = not self.rows.is_parent(account_id, key_id) and not self.runs(account_id, key_id)
        last = int(free and random.random() < 0.5)
        reply = self.check("giveback", account_id, *self.seen(), key_id, last)
        if reply[0] != "OK":
            return
        if last:
            self.rows.close(account_id, key_id)
            self.sums.closed(account_id, key_id, reply[3])
            return
        name = key("account", account_id)
        share, used = self.shard.client.hmget(name, f"p:{key_id}", f"K{key_id}.ct")
        if share:
            assert share.rpartition(":")[2] == used.partition(":")[2] == str(reply[3])

    def a_key(self, account_id: int) -> int:
        """Mostly one that may make calls."""
        account = self.model.accounts.get(account_id)
        carved = list(account.shares) if account else []
        return self.random.choice([5, 5, 5, 6, *carved, *carved, *carved])

    def guard_of(self, account_id: int, key_id: int) -> int:
        """Which version of a key's guards a worker has checked: mostly that which it has."""
        account = self.model.accounts.get(account_id)
        text = account.facts.get(f"k:{key_id}", "") if account else ""
        known = int(text.partition("gv:")[2].partition(" ")[0] or "0")
        return known if self.random.random() < 0.95 else self.random.choice([0, 3, 4])
