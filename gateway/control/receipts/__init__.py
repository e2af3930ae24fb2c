"""`/v1/receipts`: one call with everything that explains what it cost."""

from gateway.control.receipts.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
