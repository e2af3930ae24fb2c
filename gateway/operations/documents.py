"""What plans and routes of the API have in common: mistakes in documents, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.rows import BY_STRIPE
from gateway.operations.errors import ConflictError, DocumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config import Problem

MANAGED_BY_CONFIG = "managed_by_config"
MANAGED_BY_STRIPE = "managed_by_stripe"


class Written(NamedTuple):
    """A document, or a merge patch of one, as it came; and what is wrong with its shape."""

    content: Mapping[str, Any]
    mistakes: Sequence[Problem] = ()

    def check(self, problems: Sequence[Problem]) -> None:
        """Raise everything that is wrong with it, if anything is.

        `problems` are what the config's reader says, which tells what to do: a mistake in the shape
        counts where it says nothing of the same field.

        Raises: DocumentError.
        """
        known = [problem.where for problem in problems]
        others = [
            mistake
            for mistake in self.mistakes
            if not any(_same(mistake.where, where) for where in known)
        ]
        if problems or others:
            raise DocumentError([*problems, *others])


def managed_by_config(kind: str, name: str) -> ConflictError:
    """The config's file describes it, and would make it again what it says."""
    return ConflictError(
        MANAGED_BY_CONFIG,
        f'the {kind} "{name}" is described by the config file: change it there, then run '
        '"tollkeeper apply"',
    )


def managed_elsewhere(kind: str, name: str, managed_by: str) -> ConflictError:
    """The config's file or a product at Stripe describes it, and would make it that again."""
    if managed_by != BY_STRIPE:
        return managed_by_config(kind, name)
    return ConflictError(
        MANAGED_BY_STRIPE,
        f'the {kind} "{name}" is described by its product at Stripe: change the metadata there',
    )


def _same(one: str, other: str) -> bool:
    """Whether two names of fields are of one field, or one is within the other."""
    short, long = sorted((one, other), key=len)
    return long == short or long.startswith((f"{short}.", f"{short}[")) or not short
