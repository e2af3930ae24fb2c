"""`/v1/audit-log`: who changed what, from where."""

from gateway.control.audit_log.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
