"""`/v1/plans`: what accounts can subscribe to."""

from gateway.control.plans.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
