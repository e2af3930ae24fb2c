"""The deployment's master keys as one secret text: what seals everything else.

Without the cipher itself, so that who only makes or checks one needs not load it.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets

MASTER_KEY_BYTES = 32
MASTER_KEYS_MAX = 16

_BETWEEN = re.compile(r"[\s,]+")


def new_master_key() -> str:
    """A key nobody has: 44 characters of URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()


def read_master_keys(text: str) -> tuple[str, ...]:
    """The keys in a text, newest first, separated by commas or white space.

    Raises: ValueError where one is no key, by its place and without repeating it.
    """
    keys = tuple(key for key in _BETWEEN.split(text) if key)
    if not 0 < len(keys) <= MASTER_KEYS_MAX:
        raise ValueError(f"must be 1 to {MASTER_KEYS_MAX} keys, newest first, not {len(keys)}")
    for place, key in enumerate(keys, 1):
        if not _is_key(key):
            raise ValueError(
                f"key {place} is not {MASTER_KEY_BYTES} bytes in URL-safe base64 (44 characters)"
            )
    return keys


def _is_key(text: str) -> bool:
    try:
        key = base64.b64decode(text, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return False
    return len(key) == MASTER_KEY_BYTES
