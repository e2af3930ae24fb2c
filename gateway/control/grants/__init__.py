"""`/v1/grants` and `/v1/me/grants`: lots of credits."""

from gateway.control.grants.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
