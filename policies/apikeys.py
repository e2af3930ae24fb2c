"""API keys as text: `tk_<env>_<22 random base62><6 base62 of CRC32>`, how one is checked and kept.

The API's tokens (`tt_`) have the same layout. A refresh token (`tr_`) names its login session, in
32 hex digits, before the random part.

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
KEY, TOKEN, REFRESH = KINDS = ("tk", "tt", "tr")
SESSION_CHARACTERS = 32
# The longest well-formed key; anything longer is refused before it is hashed or matched.
KEY_CHARACTERS_MAX = len("tk_live_") + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS

# ASCII by construction: `\d` and `\w` would admit digits and letters of other scripts.
_SHAPES = {
    kind: re.compile(rf"{kind}_(?:dev|live)_{named}[0-9A-Za-z]{{28}}", re.ASCII)
    for kind, named in ((KEY, ""), (TOKEN, ""), (REFRESH, "[0-9a-f]{32}"))
}
_RANDOM = re.compile(r"[0-9A-Za-z]{22}", re.ASCII)
_SESSION = re.compile(r"[0-9a-f]{32}", re.ASCII)
# Characters of the random part that may be shown, enough to recognise a key in a list. The last
# four, of the checksum, give away as much again (24 bits each): 83 of 131 bits stay unknown.
_SHOWN_RANDOM_CHARACTERS = 4


def compose_key(env: str, random: str) -> str:
    """The key of an environment ("dev" or "live") and 22 random base62 characters.

    The caller brings the randomness (from `secrets`), so that this stays a pure function.

    Raises: ValueError for another environment or random part, without repeating the latter.
    """
    return _compose(KEY, env, "", random)


def compose_token(env: str, random: str) -> str:
    """As `compose_key`, a token of the API."""
    return _compose(TOKEN, env, "", random)


def compose_refresh(env: str, session: str, random: str) -> str:
    """As `compose_key`, a refresh token of the login session of this id, 32 hex digits.

    Raises: ValueError also for another id.
    """
    if _SESSION.fullmatch(session) is None:
        raise ValueError("the id of a login session is 32 hex digits")
    return _compose(REFRESH, env, session, random)


def _compose(kind: str, env: str, session: str, random: str) -> str:
    if env not in ENVIRONMENTS:
        raise ValueError(f'"{env}" is not an environment of keys: use "dev" or "live"')
    if _RANDOM.fullmatch(random) is None:
        raise ValueError(f"the random part of a key is {RANDOM_CHARACTERS} characters of base62")
    body = f"{kind}_{env}_{session}{random}"
    return body + checksum(body)


def checksum(body: str) -> str:
    """Six base62 digits, most significant first, of the CRC32 over everything before them."""
    rest = crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARACTERS):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def well_formed(text: str, kind: str = KEY) -> bool:
    """Whether a text has the shape and checksum of its kind; not whether it was ever issued."""
    if len(text) > KEY_CHARACTERS_MAX + SESSION_CHARACTERS or _SHAPES[kind].fullmatch(text) is None:
        return False
    return checksum(text[:-CHECKSUM_CHARACTERS]) == text[-CHECKSUM_CHARACTERS:]


def session_of(refresh: str) -> str:
    """The id of the login session that a well-formed refresh token names."""
    end = len(refresh) - RANDOM_CHARACTERS - CHECKSUM_CHARACTERS
    return refresh[end - SESSION_CHARACTERS : end]


def digest(text: str, pepper: bytes) -> bytes:
    """What the database keeps in place of a key: 32 bytes of HMAC-SHA-256 under the pepper."""
    return hmac.digest(pepper, text.encode(), hashlib.sha256)


def display(text: str) -> tuple[str, str]:
    """A well-formed key's or token's prefix and last four characters: `tk_live_Ab3x`, `9fQz`."""
    shown = len(text) - RANDOM_CHARACTERS - CHECKSUM_CHARACTERS + _SHOWN_RANDOM_CHARACTERS
    return text[:shown], text[-4:]
