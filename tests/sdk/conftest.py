"""Every test here runs with a vendor's sync client and with its async one."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["sync", "async"])
def sync(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "sync")
