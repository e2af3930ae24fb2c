"""API keys as text: `tk_<env>_<22 random base62><6 base62 of CRC32>`, how one is checked and kept.

The checksum lets the proxy turn away typing mistakes and guesses without any look-up, and lets
scanners of leaked secrets recognise a key with certainty. It protects nothing by itself: the 22
random characters (131 bits) do. Only the digest, a short prefix and the last four characters are
ever stored.

The layout is GitHub's (https://github.blog/engineering/behind-githubs-new-authentication-token-formats/).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from zlib import crc32

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ENVIRONMENTS = ("dev", "live")
RANDOM_CHARACTERS = 22
CHECKSUM_CHARACTERS = 6
# The longest well-formed key; anything longer is refused before it is hashed or matched.
KEY_CHARACTERS_MAX = len("tk_live_") + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS

# ASCII by construction: `\d` and `\w` would admit digits and letters of other scripts.
_SHAPE = re.compile(r"tk_(?:dev|live)_[0-9A-Za-z]{28}", re.ASCII)
_RANDOM = re.compile(r"[0-9A-Za-z]{22}", re.ASCII)
# Characters of the random part that may be shown, enough to recognise a key in a list. The last
# four, of the checksum, give away as much again (24 bits each): 83 of 131 bits stay unknown.
_SHOWN_RANDOM_CHARACTERS = 4


def compose_key(env: str, random: str) -> str:
    """The key of an environment ("dev" or "live") and 22 random base62 characters.

    The caller brings the randomness (from `secrets`), so that this stays a pure function.

    Raises: ValueError for another environment or random part, without repeating the latter.
    """
    if env not in ENVIRONMENTS:
        raise ValueError(f'"{env}" is not an environment of keys: use "dev" or "live"')
    if _RANDOM.fullmatch(random) is None:
        raise ValueError(f"the random part of a key is {RANDOM_CHARACTERS} characters of base62")
    body = f"tk_{env}_{random}"
    return body + checksum(body)


def checksum(body: str) -> str:
    """Six base62 digits, most significant first, of the CRC32 over everything before them."""
    rest = crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARACTERS):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def well_formed(text: str) -> bool:
    """Whether a text has a key's shape and checksum; not whether it was ever issued."""
    if len(text) > KEY_CHARACTERS_MAX or _SHAPE.fullmatch(text) is None:
        return False
    return checksum(text[:-CHECKSUM_CHARACTERS]) == text[-CHECKSUM_CHARACTERS:]


def digest(text: str, pepper: bytes) -> bytes:
    """What the database keeps in place of a key: 32 bytes of HMAC-SHA-256 under the pepper."""
    return hmac.digest(pepper, text.encode(), hashlib.sha256)


def display(text: str) -> tuple[str, str]:
    """A well-formed key's prefix and last four characters, as in `tk_live_Ab3x` and `9fQz`."""
    shown = len(text) - RANDOM_CHARACTERS - CHECKSUM_CHARACTERS + _SHOWN_RANDOM_CHARACTERS
    return text[:shown], text[-4:]
