"""Sealing: what Postgres keeps and nobody may read there.

`Sealer` seals with the deployment's master keys: secrets of owners, private halves of signing keys.
`AnswerSealer` seals an answer for whoever shows the same Idempotency-Key again.
Both are Fernet: AES-128-CBC with an HMAC-SHA-256 over all of it (https://github.com/fernet/spec).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.identity.master_key import read_master_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

# What keys are derived for; another purpose needs another label.
_ANSWER_LABEL = b"tollkeeper: answer of "


class NotConfiguredError(Exception):
    """This deployment has no master key, so nothing can be sealed or opened."""

    def __init__(self) -> None:
        super().__init__(
            "nothing can be sealed without a master key: set gateway.master_key, such as "
            '"env:TOLLKEEPER_MASTER_KEY"'
        )


class CannotOpenError(Exception):
    """It was sealed under another key, or changed since."""


class Sealer:
    """Seals with the first of the master keys; opens what any of them sealed."""

    __slots__ = ("_fernet",)

    def __init__(self, keys: Sequence[str]) -> None:
        """Take keys, newest first; without any, whatever is asked raises NotConfiguredError.

        Raises: ValueError for a key that is none.
        """
        self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None

    @classmethod
    def of(cls, text: str | None) -> Sealer:
        """From the secret that `gateway.master_key` refers to. Raises: ValueError, as above."""
        return cls(() if text is None else read_master_keys(text))

    @property
    def configured(self) -> bool:
        """Whether there is a key."""
        return self._fernet is not None

    def seal(self, content: bytes) -> bytes:
        """Content that only a holder of the key can read. Raises: NotConfiguredError."""
        return self._keys().encrypt(content)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises: CannotOpenError, NotConfiguredError."""
        try:
            return self._keys().decrypt(sealed)
        except InvalidToken:
            raise _other_master_key() from None

    def rotate(self, sealed: bytes) -> bytes:
        """The same content under the newest key. Raises: CannotOpenError, NotConfiguredError."""
        try:
            return self._keys().rotate(sealed)
        except InvalidToken:
            raise _other_master_key() from None

    def _keys(self) -> MultiFernet:
        if self._fernet is None:
            raise NotConfiguredError
        return self._fernet


class AnswerSealer:
    """Seals answers so that it takes the pepper and the client's own key to read them."""

    __slots__ = ("_pepper",)

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def seal(self, idempotency_key: str, answer: bytes) -> bytes:
        """An answer, for who shows the key again."""
        return self._cipher(idempotency_key).encrypt(answer)

    def open(self, idempotency_key: str, sealed: bytes) -> bytes:
        """The answer. Raises: CannotOpenError for another key."""
        try:
            return self._cipher(idempotency_key).decrypt(sealed)
        except InvalidToken:
            raise CannotOpenError("the answer was sealed for another Idempotency-Key") from None

    def _cipher(self, idempotency_key: str) -> Fernet:
        # The pepper is the secret; the client's key may be short, and only sets keys apart.
        derivation = HKDF(
            SHA256(), length=32, salt=None, info=_ANSWER_LABEL + idempotency_key.encode()
        )
        return Fernet(base64.urlsafe_b64encode(derivation.derive(self._pepper)))


def _other_master_key() -> CannotOpenError:
    return CannotOpenError(
        "it was sealed with another master key: put that one back into gateway.master_key, behind "
        "the newest"
    )
