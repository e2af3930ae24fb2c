"""`/v1/offers`: what an account can buy."""

from gateway.control.offers.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
