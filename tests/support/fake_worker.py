"""A worker that speaks the supervisor's protocol and serves nothing; its argument says how.

good     ready, then waits for SIGTERM or the end of its input
broken   ends before it is ready
deaf     ignores SIGTERM
silent   never gets ready
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    kind = sys.argv[1]
    line = sys.stdin.readline()
    if kind == "broken":
        sys.exit(3)
    if kind == "silent":
        signal.pause()
    settings = json.loads(line)
    ignored = signal.SIG_IGN if kind == "deaf" else lambda *_: os._exit(0)
    signal.signal(signal.SIGTERM, ignored)
    sys.stdout.write("a line that is no event\n")
    sys.stdout.write(json.dumps({"event": "ready", "pid": os.getpid(), "got": settings}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    if kind == "deaf":
        signal.pause()


main()
