"""Versions of documents (RFC 9110, section 8.8.3), so that nobody undoes what he has not seen."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gateway.control.api.problems import Problem

if TYPE_CHECKING:
    from pydantic import BaseModel


def etag_of(document: BaseModel) -> str:
    """The version of a document: another one whenever anything in it is different."""
    digest = hashlib.sha256(document.model_dump_json().encode()).hexdigest()
    return f'"{digest[:24]}"'


def names(header: str, etag: str) -> bool:
    """Whether an If-Match or If-None-Match header names this version."""
    given = [part.strip() for part in header.split(",")]
    return "*" in given or etag in [part.removeprefix("W/") for part in given]


def check_if_match(header: str | None, document: BaseModel) -> None:
    """Raises: Problem (412) when the caller means another version than there is."""
    if header is not None and not names(header, etag_of(document)):
        raise Problem(
            412,
            "precondition_failed",
            "It was changed since you read it: read it again and repeat your change.",
            headers={"ETag": etag_of(document)},
        )
