"""What an operation refuses or fails at. Each text is one line for a person and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import Problem


class OperationError(Exception):
    """An operation did not do all it was asked. Nothing secret is in its text."""


class UsageError(OperationError):
    """It can't be done as asked: an unknown name, a taken one, a wrong amount. Nothing changed."""


class NotToldError(OperationError):
    """Postgres has the change, Redis could not be told: calls may still be decided the old way."""

    def __init__(self, account: str) -> None:
        super().__init__(
            f'the change to "{account}" is in Postgres, but Redis did not answer, so calls may not '
            f'follow it yet: when Redis is back, run "tollkeeper accounts sync {account}" '
            "(do not repeat this command)"
        )


class AccountsNotToldError(NotToldError):
    """The same of many accounts, after a change that is about all of them."""

    def __init__(self) -> None:
        OperationError.__init__(
            self,
            "the change is in Postgres, but Redis did not answer, so calls of some accounts may "
            "not follow it yet: repeat the change when Redis is back",
        )


class DocumentError(UsageError):
    """A document has mistakes; `problems` names them all by their fields."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


class ConflictError(OperationError):
    """It can't be done as things are; `code` says why, for programs. Nothing changed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class UnknownError(OperationError):
    """There is no such thing on this platform; `kind` says of what, as in "plan"."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'there is no {kind} "{name}"')
        self.kind = kind
