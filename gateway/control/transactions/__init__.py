"""`/v1/transactions`: what people owe, pay and paid."""

from gateway.control.transactions.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
