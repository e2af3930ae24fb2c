"""`/v1/stripe`: a platform's Stripe, and the catalogue there."""

from gateway.control.stripe.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
