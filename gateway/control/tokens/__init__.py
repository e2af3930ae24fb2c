"""`/v1/tokens` and `/v1/me/tokens`: what people and machines show the API."""

from gateway.control.tokens.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
