"""`/v1/routes`: what is sold, where it comes from, what it costs."""

from gateway.control.routes.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
