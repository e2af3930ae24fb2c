"""Runs the fake by itself, with a clock that runs: `python -m … --port 8090 --state FILE`.

The line that it prints when it is ready is JSON: its URL, key and webhook secret.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from .deliveries import Endpoint
from .face import FakeStripe
from .keys import WEBHOOK_SECRET
from .state import StateFile

ENDPOINT_ID = "we_FromCommandLine"


async def serve(options: argparse.Namespace) -> None:
    """Answers until it is told to stop (SIGTERM or Ctrl-C)."""
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    fake = FakeStripe(real_time=True, webhook_secret=options.webhook_secret)
    if options.state is not None:
        file = StateFile(fake, options.state)
        file.load()
        fake.api.changed.append(file.save)
    _set_endpoint(fake, options.webhook_url, options.webhook_secret)
    async with fake.serving(options.host, options.port, reuse_port=options.reuse_port):
        ready = {
            "event": "ready",
            "url": fake.url,
            "api_key": fake.api_key,
            "webhook_secret": options.webhook_secret,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _set_endpoint(fake: FakeStripe, url: str | None, secret: str) -> None:
    """Where events go by the command line: what was saved of it may be of another run."""
    known = [one for one in fake.endpoints if one.endpoint_id == ENDPOINT_ID]
    if known:
        known[0].enabled = url is not None
        known[0].url, known[0].secrets = url or known[0].url, [secret]
    elif url is not None:
        fake.endpoints.append(Endpoint(ENDPOINT_ID, url, [secret], livemode=False))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fake_stripe", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--reuse-port", action="store_true", help="whoever holds it shares it")
    parser.add_argument("--webhook-url", help="where events are sent")
    parser.add_argument("--webhook-secret", default=WEBHOOK_SECRET, help="what signs them")
    parser.add_argument("--state", type=Path, help="a file that keeps everything")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
