"""What the fake refuses, in Stripe's words: a type, a code, the parameter, a sentence."""

from __future__ import annotations

from typing import Any


class StripeError(Exception):
    """A refusal that becomes an answer with this status. `more` joins its `error` object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.more = more

    def body(self, request_id: str) -> dict[str, Any]:
        """The answer's document."""
        error: dict[str, Any] = {"message": self.message, "type": self.kind}
        if self.code is not None:
            error["code"] = self.code
        if self.param is not None:
            error["param"] = self.param
        error["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": error | self.more}


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    """A parameter, or the state of an object, does not allow what was asked."""
    return StripeError(400, message, param=param, code=code)


def missing(param: str) -> StripeError:
    """A parameter that must be there is not."""
    return invalid(f"Missing required param: {param}.", param, "parameter_missing")


def no_such(kind: str, object_id: str, param: str = "id", *, status: int = 404) -> StripeError:
    """No object of that kind has this id in this mode. In a parameter the status is 400."""
    message = f"No such {kind.replace('_', ' ')}: '{object_id}'"
    return StripeError(status, message, code="resource_missing", param=param)
