"""Platforms: the tenants of a deployment, made by its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import Problem
from gateway.config.selling import parse_slug, parse_url
from gateway.operations.errors import ConflictError, DocumentError, UnknownError

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from gateway.ledger.offerings import PlatformDetails
    from policies.catalog import Platform

PLATFORM_NAME_CHARACTERS_MAX = 200


async def find_platform(ledger: Ledger, slug: str) -> PlatformDetails:
    """The platform of this slug, if the ledger's tenant may see it.

    Raises: UnknownError.
    """
    platform = await ledger.platform_details(slug)
    if platform is None:
        raise UnknownError("platform", slug)
    return platform


async def create_platform(ledger: Ledger, platform: Platform) -> int:
    """A new platform; answers the catalogue's version with it.

    Raises: DocumentError; ConflictError for a slug that is taken.
    """
    _check(platform)
    version = await ledger.create_platform(platform)
    if version is None:
        text = f'there is a platform "{platform.slug}": choose another slug'
        raise ConflictError("name_taken", text)
    return version


async def change_platform(ledger: Ledger, before: PlatformDetails, platform: Platform) -> int:
    """Another content of a platform; answers the catalogue's version with it.

    Raises: DocumentError, UnknownError.
    """
    _check(platform)
    version = await ledger.change_platform(before.platform_id, platform)
    if version is None:
        raise UnknownError("platform", before.slug)
    return version


def _check(platform: Platform) -> None:
    problems = []
    name = platform.name
    if not 0 < len(name) <= PLATFORM_NAME_CHARACTERS_MAX or not name.isprintable():
        problem = f"must be 1 to {PLATFORM_NAME_CHARACTERS_MAX} printable characters"
        problems.append(Problem("name", problem))
    for field, text, parse in (
        ("slug", platform.slug, parse_slug),
        ("upgrade_url", platform.upgrade_url, parse_url),
        ("signup_plan", platform.signup_plan, parse_slug),
    ):
        try:
            if text is not None:
                parse(text)
        except ValueError as error:
            problems.append(Problem(field, str(error)))
    if platform.trial_microcredits and platform.signup_plan is None:
        problems.append(Problem("trial_credits", "is of no use without signup_plan"))
    if problems:
        raise DocumentError(problems)
