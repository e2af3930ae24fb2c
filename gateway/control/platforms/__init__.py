"""`/v1/platforms`: the tenants of the deployment."""

from gateway.control.platforms.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
