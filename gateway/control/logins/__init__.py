"""`/v1/login`, `/v1/logout`, and the keys that tokens are signed with."""

from gateway.control.logins.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
