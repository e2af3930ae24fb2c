"""Mixed traffic of many accounts, with a verdict: clients, agent and Postgres must tell one story.

Locust's graph shows how fast it was; this file ends with whether it was right. Rich accounts must
never be refused, poor ones must be once their credits are gone, failures of the agent cost nothing,
and every number that two witnesses know must be the same from both.

    locust --config loadtests/locust.conf
"""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from locust import HttpUser, between, events, task
from rig import Rig, Verdict, charged_in_comment

if TYPE_CHECKING:
    from locust.env import Environment

ACCOUNTS_RICH = 20
ACCOUNTS_POOR = 5
CREDITS_RICH = "1000000"
CREDITS_POOR = "20"
MICROCREDITS_PER_CREDIT = 1_000_000
STOP_TIMEOUT_S = 30
OWN_REFUSALS = {402, 503}
CHAT, IMAGE, SUGGEST = "/v1/chat/completions", "/agents/image", "/agents/suggest"
ROUTES = """
[[routes]]
name = "chat"
match = "POST /v1/chat/completions"
upstream = "{agent}"
errors = "openai"
[routes.price]
per_request = "0.1"
[[routes.price.meters]]
unit = "token"
from = ["response.json:/usage/total_tokens", "response.sse:/usage/total_tokens"]
credits_per_unit = "0.001"
reserve_units = 2000

[[routes]]
name = "image"
match = "POST /agents/image"
upstream = "{agent}"
[[routes.price.meters]]
unit = "image"
from = "response.json:/usage/images"
credits_per_unit = "5"
reserve_units = 10

[[routes]]
name = "suggest"
match = "POST /agents/suggest"
upstream = "{agent}"
[routes.price]
per_request = "0.1"
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A customer of the test."""

    name: str
    key: str
    poor: bool


@dataclass(slots=True)
class Told:
    """What the gateway told clients."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    microcredits: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)

    def charged(self, account: Account, credits: str | None) -> None:  # noqa: A002 - the product's word
        """One call's charge, from its header or its stream's last comment."""
        if credits is None:
            self.odd.append("an answer did not say what it cost")
            return
        self.microcredits[account.name] += int(Decimal(credits) * MICROCREDITS_PER_CREDIT)


class Scenario:
    """The gateway under test and what its clients were told, from locust's start to its end."""

    def __init__(self) -> None:
        self.rig = Rig(ROUTES, workers=2)
        self.told = Told()
        self.accounts: list[Account] = []
        self.turn = itertools.count()

    def begin(self) -> None:
        """Start the gateway, make the accounts and their keys."""
        self.rig.__enter__()
        try:
            self._make_accounts()
        except BaseException:
            self.rig.__exit__()
            raise

    def _make_accounts(self) -> None:
        for number in range(ACCOUNTS_RICH + ACCOUNTS_POOR):
            poor = number >= ACCOUNTS_RICH
            name = f"{'poor' if poor else 'rich'}-{number}"
            credits_given = CREDITS_POOR if poor else CREDITS_RICH
            made = self.rig.tollkeeper(
                "accounts", "create", name, "--credits", credits_given, "--key"
            )
            self.accounts.append(Account(name, made["key"]["secret"], poor))

    def judge(self) -> int:
        """Compare the witnesses; the exit code."""
        told, verdict = self.told, Verdict()
        forwarded = {path: self._forwarded(path) for path in (CHAT, IMAGE, SUGGEST)}
        books, seen = self.rig.books(sum(forwarded.values())), self.rig.seen_by_agent()
        for path, route in ((CHAT, "chat"), (IMAGE, "image"), (SUGGEST, "suggest")):
            rows = [row for row in books["rows"] if row["route"] == route]
            verdict.equal(
                f"calls of {route}",
                clients=forwarded[path],
                agent=seen[path]["calls"],
                postgres=sum(row["calls"] for row in rows),
            )
            verdict.equal(
                f"completed calls of {route}",
                clients=told.statuses[path, 200],
                agent=seen[path]["completed"],
                postgres=sum(row["calls"] for row in rows if row["ending"] == "completed"),
            )
        self._judge_amounts(verdict, books, seen)
        rich = sum(count for name, count in told.refused.items() if name.startswith("rich"))
        verdict.equal("402 on rich accounts", wanted=0, clients=rich)
        poor = {account.name for account in self.accounts if account.poor}
        verdict.true("402 on every poor account", holds=poor <= set(told.refused))
        kinds = {status for _, status in told.statuses}
        verdict.true(f"statuses {sorted(kinds)}", holds=kinds <= {200, 402, 500})
        verdict.equal("oddities", wanted=[], clients=sorted(set(told.odd)))
        verdict.equal("audit", wanted=[], found=self.rig.audit())
        return verdict.conclude()

    def _forwarded(self, path: str) -> int:
        """Calls that clients know went through: all answers but the gateway's own refusals."""
        return sum(
            count
            for (of, status), count in self.told.statuses.items()
            if of == path and status not in OWN_REFUSALS
        )

    def _judge_amounts(
        self, verdict: Verdict, books: dict[str, Any], seen: dict[str, dict[str, int]]
    ) -> None:
        charged: Counter[str] = Counter()
        for row in books["rows"]:
            charged[row["account"]] += row["charged"]
        wrong = {
            account.name: (self.told.microcredits[account.name], charged[account.name])
            for account in self.accounts
            if self.told.microcredits[account.name] != charged[account.name]
        }
        verdict.equal("accounts whose clients and Postgres disagree", wanted={}, found=wrong)
        failed = sum(row["charged"] for row in books["rows"] if row["ending"] != "completed")
        verdict.equal("microcredits charged for failures", wanted=0, postgres=failed)
        for unit, path in (("token", CHAT), ("image", IMAGE)):
            verdict.equal(
                f"{unit}s",
                clients=self.told.units[unit],
                agent=seen[path]["units"],
                postgres=books["units"].get(unit, 0),
            )


class Customer(HttpUser):
    """One client of one account."""

    wait_time = between(0, 0.05)
    scenario: Scenario

    def on_start(self) -> None:
        """Accounts are dealt out in turn, so that each has its share of users."""
        accounts = self.scenario.accounts
        self.account = accounts[next(self.scenario.turn) % len(accounts)]
        self.client.headers["Authorization"] = f"Bearer {self.account.key}"

    @task(6)
    def chat(self) -> None:
        """A JSON answer of some tokens."""
        body = {"messages": [{"role": "user", "content": "one two three"}]}
        if answer := self._call(CHAT, body, {"X-Agent-Usage": str(random.randint(0, 3000))}):
            self.scenario.told.units["token"] += answer["usage"]["total_tokens"]

    @task(2)
    def image(self) -> None:
        """Some images."""
        if answer := self._call(IMAGE, {"n": random.randint(1, 10)}, {}):
            self.scenario.told.units["image"] += answer["usage"]["images"]

    @task(2)
    def suggest(self) -> None:
        """A call at a fixed price."""
        self._call(SUGGEST, {"text": "the sea"}, {"X-Agent-Delay-Ms": "5"})

    @task(1)
    def failing(self) -> None:
        """The agent fails: the client sees it, and pays nothing."""
        self._call(SUGGEST, {}, {"X-Agent-Fail": "500"})

    @task(4)
    def stream(self) -> None:
        """A stream, read to its end; its price comes last."""
        headers = {"X-Agent-Chunks": "20", "X-Agent-Chunk-Ms": "5"}
        headers["X-Agent-Usage"] = str(random.randint(0, 3000))
        body = {"stream": True, "messages": [{"role": "user", "content": "one two three"}]}
        told, credits_charged, tokens = self.scenario.told, None, 0
        with self.client.post(
            CHAT, json=body, headers=headers, stream=True, catch_response=True, name="stream"
        ) as answer:
            self._count(CHAT, answer)
            if answer.status_code != 200:
                return
            for line in answer.iter_lines(decode_unicode=True):
                credits_charged = charged_in_comment(line) or credits_charged
                if line.startswith("data: {"):
                    usage = json.loads(line.removeprefix("data: "))["usage"]
                    tokens = usage["total_tokens"] if usage else tokens
        told.charged(self.account, credits_charged)
        told.units["token"] += tokens

    def _call(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
        """One call with a JSON answer; None unless it is a 200."""
        with self.client.post(path, json=body, headers=headers, catch_response=True) as answer:
            self._count(path, answer)
            if answer.status_code in OWN_REFUSALS:
                return None
            self.scenario.told.charged(self.account, answer.headers.get("X-Credits-Charged"))
            return answer.json() if answer.status_code == 200 else None

    def _count(self, path: str, answer: Any) -> None:
        self.scenario.told.statuses[path, answer.status_code] += 1
        if answer.status_code == 402:
            self.scenario.told.refused[self.account.name] += 1
        if answer.status_code in {200, 402, 500}:
            answer.success()  # refusals and the agent's own failures are part of the scenario


@events.init.add_listener
def _begin(environment: Environment, **_: object) -> None:
    Customer.scenario = scenario = Scenario()
    scenario.begin()
    Customer.host = environment.host = scenario.rig.url
    environment.stop_timeout = STOP_TIMEOUT_S  # users finish the call they are in


@events.quitting.add_listener
def _end(environment: Environment, **_: object) -> None:
    try:
        environment.process_exit_code = Customer.scenario.judge()
    except Exception:
        logging.getLogger(__name__).exception("no verdict")
        environment.process_exit_code = 1
    finally:
        Customer.scenario.rig.__exit__()
