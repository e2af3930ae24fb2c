"""What `dev` and `serve` say: lines for people, or JSON events for programs; mistakes on stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.catalog import Route

DEMO_ACCOUNT = "demo"
CHAT_PATH = "/v1/chat/completions"
CHAT_BODY = '{"model": "sample", "messages": [{"role": "user", "content": "Hello"}]}'


FAKE_STRIPE = """\
Subscribe at a fake Stripe: open the URL that this answers, and pay with a card that works or fails.

curl {ready.control_url}/v1/subscribe \\
  -H "Authorization: Bearer {ready.api_key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"plan": "{plan}"}}'

Months go by at {ready.fake_stripe_url}, where events and renewals can be seen."""


NOTHING_SOLD = """\
The fake Stripe at {ready.fake_stripe_url} has nothing to sell: give a plan of the config a
price_per_month, and start again."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The ready event of `dev`; its fields are a contract with scripts."""

    proxy_url: str
    control_url: str
    platform: str
    account: str
    api_key: str
    admin_token: str
    worker_pids: list[int]
    redis_url: str
    redis_pid: int | None
    postgres_url: str
    postgres_pid: int | None
    sample_agent_url: str
    fake_stripe_url: str | None = None  # told only where there is one


class Voice:
    """Speaks to a person or to a program, whoever started us."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def step(self, text: str) -> None:
        """What happens now; programs are not told."""
        if not self._as_json:
            _line(text)

    def mistakes(self, problems: Sequence[str]) -> None:
        """Why we can't start, one line each."""
        for problem in problems:
            sys.stderr.write(f"tollkeeper: {problem}\n")
        if self._as_json:
            _line(json.dumps({"event": "error", "problems": list(problems)}))

    def ready(
        self,
        ready: Ready,
        routes: Sequence[Route],
        data_dir: str,
        *,
        plan_sold: str | None,
        unheard: Mapping[str, str],
    ) -> None:
        """Calls can come: where, with which key, and one to paste.

        `plan_sold`: a plan that can be subscribed to, for the fake Stripe. `unheard`: addresses
        where nothing listens, with the name of a route that forwards there.
        """
        if self._as_json:
            event = {"event": "ready", **asdict(ready)}
            if ready.fake_stripe_url is None:
                del event["fake_stripe_url"]
            _line(json.dumps(event))
            return
        _line(f"""
Tollkeeper is ready.

  proxy        {ready.proxy_url}
  control      {ready.control_url}
  agent        {ready.sample_agent_url}
  account      {ready.account}
  API key      {ready.api_key}
  admin token  {ready.admin_token}
  data         {data_dir}
""")
        for address, route in unheard.items():
            _line(
                f'Nothing listens on {address}, where route "{route}" forwards to: calls get 502.\n'
            )
        if call := example_call(ready, routes):
            _line(f"Try it:\n\n{call}\n")
        if ready.fake_stripe_url:
            hint = FAKE_STRIPE if plan_sold else NOTHING_SOLD
            _line(f"{hint.format(ready=ready, plan=plan_sold)}\n")
        _line("Ctrl-C stops everything.")

    def serving(self, proxy_url: str, control_url: str, worker_pids: Sequence[int]) -> None:
        """The same for `serve`, whose servers and keys are its operator's."""
        if self._as_json:
            event = {"proxy_url": proxy_url, "control_url": control_url}
            _line(json.dumps({"event": "ready", **event, "worker_pids": list(worker_pids)}))
        else:
            _line(f"Tollkeeper serves {proxy_url} with {len(worker_pids)} workers.")


def example_call(ready: Ready, routes: Sequence[Route]) -> str:
    """A curl command for the chat route; "" where the config has none."""
    if not any(route.pattern == CHAT_PATH for route in routes):
        return ""
    return f"""\
curl {ready.proxy_url}{CHAT_PATH} \\
  -H "Authorization: Bearer {ready.api_key}" \\
  -H "Content-Type: application/json" \\
  -d '{CHAT_BODY}'"""


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
