"""`/v1/keys` and `/v1/me/keys`: what calls are made with."""

from gateway.control.keys.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
