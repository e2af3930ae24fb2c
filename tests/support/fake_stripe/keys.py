"""What opens the fake, and nothing else: no secrets."""

from __future__ import annotations

API_KEY = "sk_test_FakeTollkeeper"
LIVE_API_KEY = "sk_live_FakeTollkeeper"
WEBHOOK_SECRET = "whsec_FakeTollkeeper"
