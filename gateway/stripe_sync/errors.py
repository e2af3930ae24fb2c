"""What can go wrong with Stripe, by what is to be done about it."""

from __future__ import annotations


class StripeTroubleError(Exception):
    """Stripe did not do what it was asked to."""


class StripeUnavailableError(StripeTroubleError):
    """Stripe could not be asked, or had trouble of its own. Asking again may help."""


class StripeRefusedError(StripeTroubleError):
    """Stripe refused. Asking the same again will not help; `code` is Stripe's, "" for none."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class StripeMissingError(StripeRefusedError):
    """There is no such object, or not in this mode."""


class StripeKeyError(StripeTroubleError):
    """Stripe takes no such key, or not any more. Nothing can be asked until there is another."""


class NotSetUpError(Exception):
    """The platform has no Stripe settings. The text says what to set."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            f'the platform "{slug}" has no Stripe: give it a key with "tollkeeper stripe set", '
            "or a [stripe] table in the config"
        )


class NeedsMendingError(Exception):
    """An event can't be worked on until a person has mended something. The text says what."""


class KeysMissingError(NeedsMendingError):
    """What the platform's Stripe settings refer to is not there, or is no key.

    Its text says where keys are on this machine, for its operator; `told` is for everybody.
    """

    def __init__(self, slug: str, problems: str) -> None:
        self.told = (
            f'the Stripe settings of "{slug}" can\'t be used: "tollkeeper stripe show" says why'
        )
        super().__init__(f'the Stripe settings of "{slug}" can\'t be used: {problems}')
