"""`/v1/stripe/events`: what Stripe said, and what became of it; `/v1/stripe/reconcile`."""

from gateway.control.stripe_events.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
