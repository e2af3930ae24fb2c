"""Who may do what: roles, and who is behind a request."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Role(StrEnum):
    """What somebody is: of the deployment, of a platform, or of an account."""

    OPERATOR = "operator"
    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"
    ADMIN = "admin"
    MEMBER = "member"


OPERATORS: Final = frozenset({Role.OPERATOR})
# Of a platform: who manages access to it, who changes what it sells, who looks.
OWNERS: Final = OPERATORS | {Role.OWNER}
EDITORS: Final = OWNERS | {Role.EDITOR}
VIEWERS: Final = EDITORS | {Role.VIEWER}
# Of an account, for its own part of the API.
ADMINS: Final = frozenset({Role.ADMIN})
MEMBERS: Final = ADMINS | {Role.MEMBER}
EVERYBODY: Final = VIEWERS | MEMBERS


class Caller(NamedTuple):
    """Who is behind a request, and for which tenant it works.

    `account_id` None: for all accounts of the platform. `actor` is what the audit log calls it, as
    in "token:7". `key_id` is that of the API key or delegated token that was shown, `token_id` that
    of the API token, itself or behind a login; `session_id` that of a login.
    """

    role: Role
    platform_id: int
    platform_slug: str
    account_id: int | None
    actor: str
    key_id: int | None = None
    token_id: int | None = None
    session_id: str | None = None


# Of requests that nobody needs to be known for. It sees nothing of any tenant.
NOBODY: Final = Caller(Role.MEMBER, 0, "", 0, "nobody")
