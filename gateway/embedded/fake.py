"""The fake Stripe beside `tollkeeper dev --fake-stripe`: tests/support/fake_stripe, as a child.

What was bought and paid is in the data folder, as everything else of `dev`. The keys are no
secrets: they open nothing but this fake, and it listens on loopback.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.stripe import StripeTable
from gateway.embedded.fake_stripe.keys import API_KEY, WEBHOOK_SECRET
from gateway.embedded.keep import Server, kept, listening
from gateway.embedded.spawn import spawn
from gateway.ports import held_port, hold, share

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from socket import socket

FAKE_STRIPE_HOST = "127.0.0.1"
FAKE_STRIPE_PORT = 9110
# Where its keys are, for other commands to find.
KEY_FILE, WEBHOOK_FILE = "fake-stripe.key", "fake-stripe.webhook"


class FakeStripe(NamedTuple):
    """The running fake: its API and its pages are at one address."""

    url: str


def fake_table(folder: Path, url: str, table: StripeTable | None) -> StripeTable:
    """The settings for the fake at `url`, with the options of the config's own [stripe] table.

    Payers come back to the fake's first page where the config names none. The keys are in files
    of `folder`, a data folder where the fake was started.
    """
    folder = folder.resolve()  # the same text for whoever names the folder otherwise
    options = (table or StripeTable("")).options
    return StripeTable(
        secret_key=f"file:{folder / KEY_FILE}",
        webhook_secrets=(f"file:{folder / WEBHOOK_FILE}",),
        options=replace(
            options,
            api_base=url,
            success_url=options.success_url or f"{url}/",
            cancel_url=options.cancel_url or f"{url}/",
            portal_return_url=options.portal_return_url or f"{url}/",
        ),
    )


@contextlib.asynccontextmanager
async def fake_stripe(folder: Path, *, webhook_url: str, log: Path) -> AsyncIterator[FakeStripe]:
    """Starts the fake, keeps it running, and stops it at the end.

    At FAKE_STRIPE_PORT if that is free, so that its pages stay where they are. `folder` keeps its
    state and its keys.

    Raises: EmbeddedError when it does not start.
    """
    (folder / KEY_FILE).write_text(API_KEY + "\n")
    (folder / WEBHOOK_FILE).write_text(WEBHOOK_SECRET + "\n")
    with _held_port() as held:
        share(held)
        port = held_port(held)
        start = functools.partial(
            spawn,
            "the fake Stripe",
            [
                sys.executable,
                "-m",
                "gateway.embedded.fake_stripe",
                f"--host={FAKE_STRIPE_HOST}",
                f"--port={port}",
                "--reuse-port",
                f"--webhook-url={webhook_url}",
                f"--webhook-secret={WEBHOOK_SECRET}",
                f"--state={folder / 'fake-stripe.json'}",
            ],
            log=log,
            user=None,
            stop_signal=signal.SIGTERM,
            own_environment=False,
        )
        server = Server("the fake Stripe", f"http://{FAKE_STRIPE_HOST}:{port}", await start())
        async with kept(server, start):
            await listening("the fake Stripe", FAKE_STRIPE_HOST, port, log)
            yield FakeStripe(server.url)


def _held_port() -> socket:
    try:
        return hold(FAKE_STRIPE_HOST, FAKE_STRIPE_PORT)
    except OSError:
        return hold(FAKE_STRIPE_HOST)
