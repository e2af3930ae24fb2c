"""What a deployment's processes must know and nobody may read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """Texts as they are, references resolved.

    Without a `master_key` nothing can be sealed; with an empty `pepper` no key is made or known.
    """

    pepper: bytes = field(repr=False)
    admin_token: str | None = field(repr=False)
    master_key: str | None = field(repr=False)
    env: str  # of the keys and tokens that are made: "dev" or "live"
