"""Keys in the reference model: who may call with one, and what is carved out of another."""

from __future__ import annotations

from dataclasses import dataclass

from policies import limits
from policies.delegation import DELEGATION_DEPTH_MAX, Share
from tests.support.shard_model_accounts import AccountsModel, Reply
from tests.support.shard_model_state import Account, counter


@dataclass
class DelegationModel(AccountsModel):
    """`carve`, `giveback`; and what keys say of calls."""

    def carve(
        self,
        account_id: int,
        epoch: int,
        seq: int,
        parent_id: int,
        key_id: int,
        budget: int,
        text: str,
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account or f"k:{parent_id}" not in account.facts:
            return self._reply("LOAD")
        share = account.shares.get(key_id)
        place = f"K{parent_id}.ct"
        limit = _rule_of(account.facts[f"k:{parent_id}"], "ct")
        used = counter(account.counters.get(place)).used
        if denial := self._carving_denial(account, parent_id, key_id, text):
            return denial
        if limit and used + (0 if share else budget) > limit:
            return self._reply("CAP", max(limit - used, 0))
        if share:
            return self._reply("OK")
        account.shares[key_id] = Share(parent_id, budget)
        account.facts.setdefault(f"k:{key_id}", text)
        account.counters.setdefault(f"K{key_id}.ct", "0:0")
        if limit or place in account.counters:
            account.counters[place] = f"0:{used + budget}"
        return self._wrote("OK")

    def _carving_denial(
        self, account: Account, parent_id: int, key_id: int, text: str
    ) -> Reply | None:
        """Keys that are over, too many of them, or the account; not what is left of a cap."""
        own = account.facts.get(f"k:{key_id}", text)
        if self._is_over(account.facts[f"k:{parent_id}"]) or self._is_over(own):
            return self._reply("KEY")
        ancestors = self._ancestors(account, parent_id)
        if isinstance(ancestors, str):
            return self._reply(ancestors)
        if len(ancestors) == DELEGATION_DEPTH_MAX:
            return self._reply("DEPTH")
        if account.facts["status"] != "active":
            return self._reply("SUSPENDED")
        share = account.shares.get(key_id)
        gave_back = share is not None and share.used_microcredits is not None
        return self._reply("KEY") if gave_back else None

    def giveback(self, account_id: int, epoch: int, seq: int, key_id: int, last: int) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account:
            return self._amended_unloaded(account_id)
        over = self._is_over(account.facts.get(f"k:{key_id}", "-1"))
        if not over and not isinstance(self._ancestors(account, key_id), str):
            return self._reply("ALIVE")
        before = account.fields()
        share, used = account.shares.get(key_id), account.counters.get(f"K{key_id}.ct")
        counted = 0
        if share:
            counted = counter(used).used if used else share.counted_microcredits
            place = f"K{share.parent_key_id}.ct"
            if place in account.counters:
                kept = counter(account.counters[place])
                rest = kept.used + counted - share.counted_microcredits
                account.counters[place] = str(kept._replace(used=max(rest, 0)))
            account.shares[key_id] = share._replace(used_microcredits=counted)
        if last:
            account.facts.pop(f"k:{key_id}", None)
            account.shares.pop(key_id, None)
            for name in [name for name in account.counters if name.startswith(f"K{key_id}.")]:
                del account.counters[name]
        if account.fields() == before:
            return self._reply("OK", counted)
        return self._wrote("OK", counted)

    def _person_denial(self, account: Account, key_id: int) -> Reply | None:
        """The key, those that it was carved from, the account."""
        key = account.facts.get(f"k:{key_id}")
        if key is None:
            return self._reply("LOAD")
        if self._is_over(key):
            return self._reply("KEY")
        ancestors = self._ancestors(account, key_id)
        if isinstance(ancestors, str):
            return self._reply(ancestors)
        if account.facts["status"] != "active":
            return self._reply("SUSPENDED")
        return None

    def _guard_denial(self, account: Account, key_id: int, checked: int) -> Reply | None:
        version = _rule_of(account.facts[f"k:{key_id}"], limits.GUARD)
        return self._reply("GUARD", version) if version != checked else None

    def _scopes(self, account: Account, key_id: int, route_rules: str) -> dict[str, str]:
        """Rules by scope, in the order in which they are asked."""
        key_rules = account.facts[f"k:{key_id}"].partition(" ")[2]
        scopes = {"A": account.facts["rules"], f"K{key_id}": key_rules}
        for ancestor in self._ancestors(account, key_id):
            rules = limits.parse_rules(account.facts[f"k:{ancestor}"].partition(" ")[2])
            scopes[f"K{ancestor}"] = " ".join(str(rule) for rule in rules if rule.kind != "ct")
        scope, _, text = route_rules.partition(" ")
        if scope:
            scopes[scope] = text
        return scopes

    def _ancestors(self, account: Account, key_id: int) -> list[int] | str:
        """The keys that a key was carved from; or the status of what is wrong with one of them."""
        ancestors: list[int] = []
        while parent := _rule_of(account.facts.get(f"k:{key_id}", ""), limits.PARENT):
            share = account.shares.get(key_id)
            too_many = len(ancestors) == DELEGATION_DEPTH_MAX
            if too_many or not share or share.used_microcredits is not None:
                return "KEY"
            text = account.facts.get(f"k:{parent}")
            if text is None:
                return "LOAD"
            if self._is_over(text):
                return "KEY"
            ancestors.append(parent)
            key_id = parent
        return ancestors

    def _is_over(self, text: str) -> bool:
        """Whether a key is revoked, or has expired by now."""
        state = int(text.partition(" ")[0])
        return state != 0 and state <= self.now_ms


def _rule_of(text: str, kind: str) -> int:
    """What a key's text says of a kind of rules; 0: nothing."""
    rules = limits.parse_rules(text.partition(" ")[2])
    return next((rule.limit for rule in rules if rule.kind == kind), 0)
