"""`tollkeeper stripe`: a platform's Stripe."""

from gateway.cli import stripe_events
from gateway.cli.options import new_app

app = new_app("A platform's Stripe: what it said, and what it did not say.")
stripe_events.register(app)
