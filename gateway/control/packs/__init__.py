"""`/v1/packs`: credits that are sold once."""

from gateway.control.packs.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
