"""`/v1/revenue`: what came in, from what, and what that says."""

from gateway.control.revenue.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
