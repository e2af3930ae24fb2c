"""`/v1/accounts/{account_id}/invoices`: what an account used, was given and paid in a month."""

from gateway.control.statements.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
