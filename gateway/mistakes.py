"""Why the gateway can't be started as it was asked to."""

from __future__ import annotations


class StartError(Exception):
    """Something that a person can mend, one line for each; nothing secret is in them."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
