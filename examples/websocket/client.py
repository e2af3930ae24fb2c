"""What a customer runs: any WebSocket library, with the key in a header.

export TOLLKEEPER_URL=http://127.0.0.1:8080 TOLLKEEPER_API_KEY=tk_dev_...
python client.py            # a conversation
python client.py --spend    # one that goes on until the credits are used up
"""

from __future__ import annotations

import json
import os
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol


def open_conversation() -> ClientConnection:
    """A WebSocket through the gateway."""
    url = os.environ["TOLLKEEPER_URL"].replace("http", "ws", 1)
    return connect(
        f"{url}/talk",
        additional_headers={"Authorization": f"Bearer {os.environ['TOLLKEEPER_API_KEY']}"},
        subprotocols=[Subprotocol("parrot.v1")],
    )


def chat() -> None:
    """Say a few things, and let the agent end it."""
    with open_conversation() as connection:
        headers = connection.response.headers if connection.response else {}
        reserved, left = headers["X-Credits-Reserved"], headers["X-Credits-Remaining"]
        print(f"open ({connection.subprotocol}): {reserved} credits are reserved, {left} left")
        for text in ("Good morning, agent", "How are you?"):
            connection.send(text)
            print(connection.recv())
        connection.send("bye")
        end(connection)


def spend() -> None:
    """Talk until nobody pays for it any more, and then try to come back."""
    heard = 0
    with open_conversation() as connection:
        try:
            while True:
                connection.send("more")
                connection.recv()
                heard += 1
        except ConnectionClosed:
            print(f"{heard} messages were answered")
            end(connection)
    try:
        open_conversation()
    except InvalidStatus as refused:
        problem = json.loads(refused.response.body or b"{}")
        print(f"{problem['status']} {problem['code']}: {problem['detail']}")


def end(connection: ClientConnection) -> None:
    """How the conversation ended."""
    try:
        connection.recv()
    except ConnectionClosed as closed:
        if closed.rcvd is not None:
            print(f"closed: {closed.rcvd.code} {closed.rcvd.reason}")


def main() -> None:
    """Talk a little, or for all there is."""
    if "--spend" in sys.argv:
        spend()
    else:
        chat()


if __name__ == "__main__":
    main()
