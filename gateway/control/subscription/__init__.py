"""`/v1/me/subscription`: buying, changing and ending what an account pays for."""

from gateway.control.subscription.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
