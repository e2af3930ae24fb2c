"""`/v1/me/delegations`: parts of keys for agents."""

from gateway.control.delegations.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
