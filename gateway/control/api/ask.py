"""A request as handlers of resources have it: who asks, for whom, what there is to work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.control.api.problems import not_found
from gateway.ledger import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.control.api.roles import Caller
    from gateway.control.api.services import Services
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.rows import AccountRow


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    `ledger` sees and changes nothing but the caller's tenant: use it for everything. `address` is
    the client's. `change_id`, 32 hex digits, is the same when the request is repeated with its
    Idempotency-Key.
    """

    services: Services
    caller: Caller
    ledger: Ledger
    request_id: str
    address: str
    path: Mapping[str, str]
    change_id: str

    @property
    def counters(self) -> Counters:
        """Redis."""
        return self.services.counters

    @property
    def platform_id(self) -> int:
        """Of the platform that the request works on."""
        return self.caller.platform_id

    def id_of(self, name: str) -> int:
        """A number of the path."""
        return int(self.path[name])

    async def account(self) -> AccountRow:
        """The account that the path names, or else the caller's own.

        Raises: Problem (404) when there is none.
        """
        named = self.path.get("account_id")
        account_id = self.caller.account_id if named is None else int(named)
        found = None
        if account_id is not None:
            found = await self.ledger.account(self.platform_id, account_id)
        if found is None:
            raise not_found("account")
        return found

    def deployment_ledger(self) -> Ledger:
        """For operators' endpoints alone: the whole deployment's books, with them as the actor."""
        scope = Scope(self.platform_id, None, self.caller.actor, self.address, self.request_id)
        return self.services.ledger.scoped(scope)
