"""Identity providers that a platform trusts to name its accounts: register, change, remove.

A token of one must be made for `tollkeeper:<the platform's slug>`, and is verified with the keys at
the URL that is registered here (gateway/identity/jwks.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from gateway.config import Problem
from gateway.identity.claims import ISSUER_CHARACTERS_MAX
from gateway.identity.key_set import ISSUER_ALGORITHMS
from gateway.operations.errors import ConflictError, DocumentError, UnknownError, UsageError
from gateway.operations.publish import publish_accounts
from gateway.operations.reach import check_upstream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.upstream import Networks

ISSUERS_MAX = 20
URL_CHARACTERS_MAX = 2_048
CLAIM_CHARACTERS_MAX = 200
ACCOUNT_CLAIM_DEFAULT = "sub"
ALGORITHMS_DEFAULT = ("RS256",)

_VISIBLE = re.compile(r"[!-~]+")
# Ours: no issuer is to speak for this deployment.
_OWN_ISSUERS = "tollkeeper:"


class RegisteredIssuer(NamedTuple):
    """An issuer that is trusted now, and the catalogue's version with it."""

    issuer_id: int
    version: int


class Trust(NamedTuple):
    """How an issuer is believed: by which keys, which claim, which algorithms."""

    jwks_url: str
    account_claim: str = ACCOUNT_CLAIM_DEFAULT
    algorithms: Sequence[str] = ALGORITHMS_DEFAULT


async def register_issuer(
    ledger: Ledger, platform_id: int, issuer: str, trust: Trust, networks: Networks
) -> RegisteredIssuer:
    """Trust an issuer, by the `iss` of its tokens. `networks`: where its keys may be.

    Raises: DocumentError for what can't be, all of it; ConflictError for one that the platform
    trusts already; UsageError for one more than it may.
    """
    _refuse(problems_of_issuer(issuer) + await problems_of_trust(trust, networks))
    if len(await ledger.issuers(platform_id)) >= ISSUERS_MAX:
        raise UsageError(f"a platform has at most {ISSUERS_MAX} issuers: remove one first")
    made = await ledger.add_issuer(platform_id, issuer, **trust._asdict())
    if made is None:
        raise ConflictError(
            "name_taken", "this issuer is registered: change it, or remove it first"
        )
    return RegisteredIssuer(*made)


async def change_issuer(
    ledger: Ledger, platform_id: int, issuer_id: int, trust: Trust, networks: Networks
) -> int:
    """Trust an issuer otherwise; answers the catalogue's version with it.

    Raises: DocumentError for what can't be, all of it; UnknownError.
    """
    _refuse(await problems_of_trust(trust, networks))
    version = await ledger.change_issuer(platform_id, issuer_id, **trust._asdict())
    if version is None:
        raise UnknownError("issuer", str(issuer_id))
    return version


async def remove_issuer(
    ledger: Ledger, counters: Counters, platform_id: int, issuer_id: int
) -> int:
    """Trust an issuer no more; answers the catalogue's version without it.

    Its keys are revoked, and with them what was delegated from them. Workers refuse its tokens by
    that version; Redis is told besides, for delegated keys live there. Repeating it tells Redis
    again.

    Raises: UnknownError when there never was such an issuer; AccountsNotToldError when Redis could
    not be told.
    """
    removed = await ledger.remove_issuer(platform_id, issuer_id)
    if removed is None:
        raise UnknownError("issuer", str(issuer_id))
    await publish_accounts(ledger, counters, removed.account_ids)
    return removed.version


def problems_of_issuer(issuer: str) -> list[tuple[str, str]]:
    """What can't be an issuer's name, by field."""
    if not 0 < len(issuer) <= ISSUER_CHARACTERS_MAX or not _VISIBLE.fullmatch(issuer):
        return [("issuer", f"is 1 to {ISSUER_CHARACTERS_MAX} visible ASCII characters")]
    if issuer.startswith(_OWN_ISSUERS):
        return [("issuer", f"can't begin with \"{_OWN_ISSUERS}\", as the gateway's own does")]
    return []


async def problems_of_trust(trust: Trust, networks: Networks) -> list[tuple[str, str]]:
    """What can't be, by field; the URL's name is resolved."""
    found = [("jwks_url", problem) for problem in await _problems_of_url(trust.jwks_url, networks)]
    claim, algorithms = trust.account_claim, trust.algorithms
    if not 0 < len(claim) <= CLAIM_CHARACTERS_MAX or not claim.isprintable():
        message = f"is 1 to {CLAIM_CHARACTERS_MAX} printable characters"
        found.append(("account_claim", message))
    known = set(algorithms) <= set(ISSUER_ALGORITHMS)
    if not algorithms or not known or len(set(algorithms)) < len(algorithms):
        found.append(("algorithms", f"are some of {', '.join(ISSUER_ALGORITHMS)}, each once"))
    return found


async def _problems_of_url(url: str, networks: Networks) -> list[str]:
    if len(url) > URL_CHARACTERS_MAX or not _VISIBLE.fullmatch(url) or "#" in url:
        return [f"is up to {URL_CHARACTERS_MAX} visible ASCII characters, without a fragment"]
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        return ["is not a valid URL"]
    # What comes over a public network in the open, anybody may have written.
    places = networks.only_allowed() if scheme == "http" else networks
    return await check_upstream(url.partition("?")[0], places)


def _refuse(problems: Sequence[tuple[str, str]]) -> None:
    if problems:
        raise DocumentError([Problem(*problem) for problem in problems])
