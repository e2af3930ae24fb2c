"""`/v1/settlements`: what calls cost; searching, following, refunding them."""

from gateway.control.settlements.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
