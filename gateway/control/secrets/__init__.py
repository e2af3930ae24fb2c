"""`/v1/secrets`: credentials that a platform's routes show to its agents."""

from gateway.control.secrets.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
