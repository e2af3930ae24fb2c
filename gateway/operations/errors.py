"""What an operation refuses or fails at. Each text is one line for a person and says what to do."""

from __future__ import annotations


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
