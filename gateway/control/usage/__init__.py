"""`/v1/usage`: what was called and charged over a time, and what it will come to."""

from gateway.control.usage.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
