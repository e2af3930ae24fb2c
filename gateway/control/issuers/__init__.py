"""`/v1/issuers`: identity providers that a platform trusts to name its accounts."""

from gateway.control.issuers.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
