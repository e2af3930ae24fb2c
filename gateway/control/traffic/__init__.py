"""`/v1/traffic`: what the workers are doing at this moment."""

from gateway.control.traffic.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
