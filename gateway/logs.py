"""Logs: one line an event, on stderr, without secrets.

No code of ours logs a key. The filter is a second lock: whatever a library or an exception's text
brings along, an API key, a token of the API, or a key of Stripe's in it is masked.
"""

from __future__ import annotations

import logging
import re
import sys

_KEY = re.compile(r"\b(tk|tt|sk|rk|whsec)_[A-Za-z]*_?[0-9A-Za-z]+")
MASK = r"\1_***"
# They tell of every request, or of every job.
TALKATIVE = ("stripe", "pgqueuer")


class MaskKeys(logging.Formatter):
    """Formats a record, tracebacks included, and masks keys in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as it is written."""
        return _KEY.sub(MASK, super().format(record))


def set_up_logs(level: int = logging.INFO) -> None:
    """Send all logs of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskKeys("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
