"""`/v1/me`: who asks."""

from gateway.control.me.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
