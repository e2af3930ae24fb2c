"""An issuer's key set (RFC 7517), read for the algorithms that it is trusted with.

A key is taken for an algorithm only if its type fits: an RSA key never verifies ES256, and nothing
verifies HS256 or "none". What can't be used is left out; what can't be read is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.identity.claims import KEY_ID_CHARACTERS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

JWKS_BYTES_MAX = 262_144
JWKS_KEYS_MAX = 64
RSA_BITS_MIN, RSA_BITS_MAX = 2_048, 8_192
# A larger one makes each verification slow; everybody's is 65537.
RSA_EXPONENT_MAX = 2**32

IssuerKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

# What each algorithm's keys are in a key set.
_KEY_TYPES = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
ISSUER_ALGORITHMS = tuple(_KEY_TYPES)


class KeySetError(Exception):
    """It is no key set, or over a bound."""


def read_key_set(body: bytes, algorithms: Iterable[str]) -> dict[tuple[str, str], IssuerKey]:
    """The usable keys by their id and algorithm. Raises: KeySetError."""
    if len(body) > JWKS_BYTES_MAX:
        raise KeySetError(f"over {JWKS_BYTES_MAX} bytes")
    try:
        document = orjson.loads(body)
    except ValueError:
        raise KeySetError("no JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeySetError("no key set")
    if len(entries) > JWKS_KEYS_MAX:
        raise KeySetError(f"over {JWKS_KEYS_MAX} keys")
    trusted = tuple(algorithms)
    found: dict[tuple[str, str], IssuerKey] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_for_verifying(entry):
            continue
        fitting = [name for name in trusted if _is_for(entry, name)]
        key = _key_of(entry) if fitting else None
        if key is not None:
            for name in fitting:
                found.setdefault((entry["kid"], name), key)
    return found


def _is_for_verifying(entry: Mapping[str, Any]) -> bool:
    """Whether it is a named public key for signatures; who shows a private one has lost it."""
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    return (
        isinstance(kid, str)
        and len(kid) <= KEY_ID_CHARACTERS_MAX
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in entry
    )


def _is_for(entry: Mapping[str, Any], algorithm: str) -> bool:
    fits = entry.get("kty") == _KEY_TYPES[algorithm]
    return fits and entry.get("alg", algorithm) == algorithm


def _key_of(entry: Mapping[str, Any]) -> IssuerKey | None:
    """The key, if it is strong enough and no burden to verify with."""
    jwk = dict(entry)
    try:
        match jwk["kty"]:
            case "RSA":
                return _fair_rsa(RSAAlgorithm.from_jwk(jwk))
            case "EC":
                return _p256(ECAlgorithm.from_jwk(jwk))
            case _:
                return _ed25519(OKPAlgorithm.from_jwk(jwk))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _fair_rsa(key: object) -> RSAPublicKey | None:
    if not isinstance(key, RSAPublicKey) or not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        return None
    return key if key.public_numbers().e < RSA_EXPONENT_MAX else None


def _p256(key: object) -> EllipticCurvePublicKey | None:
    fits = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    return key if fits else None  # type: ignore[return-value] # it is one


def _ed25519(key: object) -> Ed25519PublicKey | None:
    return key if isinstance(key, Ed25519PublicKey) else None
