"""`/v1/accounts`: a platform's customers."""

from gateway.control.accounts.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
