"""What `tollkeeper dev` makes, so that the first call can be made at once, and the first sale.

The account has no plan: nothing but its credits limits it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.announce import DEMO_ACCOUNT
from gateway.operations.accounts import create_account
from gateway.operations.keys import KeyMaker, create_key
from gateway.stripe_sync.products import sync_catalogue
from gateway.stripe_sync.push import push
from policies.apikeys import digest

if TYPE_CHECKING:
    from gateway.embedded.datadir import DataDir
    from gateway.node import RunningNode

DEMO_GRANT_SOURCE = "trial"
DEMO_KEY_ENV = "dev"


async def ensure_demo(node: RunningNode, folder: DataDir, pepper: bytes, microcredits: int) -> None:
    """Makes what is missing of the account and a key that the folder remembers.

    Each part is looked for first, so a start that was interrupted anywhere is completed by the
    next. `microcredits` are given with the account, once.
    """
    ledger, platform_id = node.ledger, node.platform_id
    account = await ledger.find_account(platform_id, DEMO_ACCOUNT)
    if account is None:
        new = await create_account(
            ledger, platform_id, DEMO_ACCOUNT, microcredits=microcredits, source=DEMO_GRANT_SOURCE
        )
        account = new.account
    remembered = folder.secrets().api_key
    if remembered:
        key = await ledger.find_key(digest(remembered, pepper))
        if key and key.account_id == account.account_id and key.key_status == "active":
            return
    made = await create_key(
        ledger, node.counters, account, KeyMaker(DEMO_KEY_ENV, pepper), name=DEMO_ACCOUNT
    )
    folder.remember_api_key(made.text)


async def stock_the_fake(node: RunningNode) -> None:
    """Has the fake Stripe sell the config's plans and packs that have prices.

    What it sells already stays as it is, so that a start that was interrupted is completed by the
    next.
    """
    sync = await node.billing.sync(node.platform_id)
    await push(sync, dry_run=False)
    await sync_catalogue(sync)
