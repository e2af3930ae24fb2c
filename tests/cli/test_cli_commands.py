"""The commands from outside: what people and programs see, and what they never see."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer.main
from typer.testing import CliRunner

import gateway.cli
from gateway.cli.app import app
from policies.apikeys import well_formed
from tests.support.deployment import SHARDS, Caller, running_deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import CommandLine

HEAVY = {"aiohttp", "asyncio", "asyncpg", "cryptography", "hiredis", "pydantic", "rich", "uvloop"}
# They are about no deployment of this machine.
ABOUT_LOGINS = (["login"], ["logout"])


def commands() -> Iterator[list[str]]:
    """Every command, as one types it."""

    def below(group: object, words: list[str]) -> Iterator[list[str]]:
        subcommands = getattr(group, "commands", None)
        if subcommands is None:
            yield words
            return
        for name, command in subcommands.items():
            yield from below(command, [*words, name])

    yield from below(typer.main.get_command(app), [])


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_shows_an_example_and_speaks_json(words: list[str]) -> None:
    text = " ".join(CliRunner().invoke(app, [*words, "--help"]).stdout.split())
    assert f"Example: tollkeeper {' '.join(words)}" in text
    assert "--json" in text
    assert ("--config" in text) == (words not in ABOUT_LOGINS)


def test_the_contract_names_these_commands() -> None:
    assert {" ".join(words) for words in commands()} >= {
        *("dev", "serve", "migrate", "apply", "usage", "audit"),
        *("keys create", "keys list", "keys revoke", "keys rotate"),
        *("accounts create", "accounts list", "accounts show"),
        *("accounts suspend", "accounts resume"),
        *("accounts set-plan", "keys limit", "grants adjust", "grants revoke", "events"),
        *("calls list", "calls show", "calls refund", "rebuild", "reconcile"),
        *("grants add", "grants list", "routes list", "plans list"),
        *("routes create", "routes update", "routes delete", "routes dry-run", "routes reach"),
        *("plans show", "plans create", "plans update", "plans delete", "accounts rename"),
    }


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, gateway.cli.app; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(run.stdout.split()) == set()


async def test_an_operators_day(cli: CommandLine) -> None:
    assert (await cli.json("migrate")) == {"applied": []}
    foretold = await cli.json("apply", "--dry-run")
    assert (await cli("accounts", "list")).code == 2  # nothing is applied yet
    applied = await cli.json("apply")
    assert (foretold.pop("applied"), applied.pop("applied")) == (False, True)
    assert foretold == applied
    assert applied["routes_created"] == ["suggest", "health"]
    assert applied["prices_created"] == ["suggest"]

    made = await cli.json("accounts", "create", "alice", "--plan", "free", "--key")
    assert made["account"]["plan"] == "free"
    assert well_formed(made["key"]["secret"])
    grant = await cli.json("grants", "add", "alice", "12.5", "--expires", "2d", "--note", "hello")
    assert grant["grant"]["left_credits"] == "12.5"
    (account,) = (await cli.json("accounts", "list"))["accounts"]
    assert (account["name"], account["plan"]) == ("alice", "free")
    shown = await cli.json("accounts", "show", "alice")
    assert (shown["account"], shown["balance"]["available_credits"]) == (account, "1012.5")
    grants = (await cli.json("grants", "list", "alice"))["grants"]
    assert [grant["source"] for grant in grants] == ["manual", "plan"]  # soonest expiry first
    assert (await cli.json("accounts", "suspend", "alice"))["account"]["status"] == "suspended"
    assert (await cli.json("accounts", "resume", "alice"))["account"]["status"] == "active"
    assert (await cli.json("accounts", "sync", "alice"))["account"]["name"] == "alice"

    number = str(made["key"]["id"])
    rotated = await cli.json("keys", "rotate", number, "--overlap", "1h")
    assert rotated["key"]["secret"] != made["key"]["secret"]
    assert (await cli.json("keys", "revoke", number))["key"]["status"] == "revoked"
    keys = (await cli.json("keys", "list", "alice"))["keys"]
    assert [key["status"] for key in keys] == ["revoked", "active"]

    routes = (await cli.json("routes", "list"))["routes"]
    assert [(route["name"], route["free"]) for route in routes] == [
        ("health", True),
        ("suggest", None),
    ]
    assert routes[1]["price"]["per_request"] == "0.1"
    assert (await cli.json("plans", "list"))["plans"][0]["requests_per_minute"] == 60
    assert (await cli.json("usage"))["usage"]["points"] == []
    assert await cli.json("audit") == {"clean": True, "accounts": 1, "findings": []}
    assert (await cli.json("audit", "alice"))["clean"]


async def test_people_get_the_same_as_text(cli: CommandLine) -> None:
    said = [
        await cli(*words.split())
        for words in (
            "apply",
            "apply",
            "accounts create alice --credits 7",
            "accounts show alice",
            "grants add alice 0.5",
            "routes list",
            "plans list",
            "keys list",
            "usage",
            "audit",
        )
    ]
    assert [answer.code for answer in said] == [0] * len(said)
    for answer, text in zip(
        said,
        (
            "route added: suggest, health",
            "Nothing changes",
            "Account alice is ready, with 7 credits.",
            "no call was made",
            "0.5 credits more",
            "POST /agents/suggest",
            "free",
            "There are no keys yet.",
            "No call was settled",
            "Clean: 1 accounts",
        ),
        strict=True,
    ):
        assert text in answer.out


async def test_a_key_is_shown_once_and_never_again(cli: CommandLine) -> None:
    await cli("apply")
    made = await cli("accounts", "create", "alice", "--key")
    (secret,) = re.findall(r"tk_\w+", made.out)
    assert well_formed(secret)
    said = [
        await cli(*words)
        for words in (
            ("accounts", "show", "alice"),
            ("accounts", "show", "alice", "--json"),
            ("keys", "list", "--json"),
            ("keys", "revoke", secret),  # a leaked key in hand is enough to end it
            ("keys", "rotate", secret),
            ("keys", "revoke", secret[:-1] + "x"),
            ("accounts", "create", "alice", "--key"),
        )
    ]
    assert [answer.code for answer in said] == [0, 0, 0, 0, 2, 2, 2]
    for answer in said:
        assert secret not in answer.out + answer.err
        assert secret[12:-4] not in answer.out + answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("accounts", "show", "alcie"), 'did you mean "alice"?'),
        (("accounts", "create", "bob", "--plan", "fre"), 'did you mean "free"?'),
        (("accounts", "create", "bob", "--credits", "-1"), "decimal number"),
        (("accounts", "create", "alice"), "taken"),
        (("accounts", "set-plan", "alice", "fre"), 'did you mean "free"?'),
        (("accounts", "rename", "alice", " "), "space"),
        (("grants", "add", "alice", "0"), "how many"),
        (("grants", "add", "alice", "1", "--expires", "soon"), "30d"),
        (("grants", "add", "alice", "1", "--source", "gift"), "'plan', 'pack'"),
        (("grants", "revoke", "99"), "grants list"),
        (("grants", "add", "alice", "1", "--expires", "2020-01-01"), "expires_at: "),
        (("keys", "revoke", "99"), "keys list"),
        (("keys", "revoke", "tk_dev_nono"), "keys list"),
        (("keys", "create", "alice", "--name", ""), "name: "),
        (("keys", "create", "alice", "--route", "sugest"), "routes[0]: "),
        (("keys", "create", "alice", "--address", "10.0.0.0/99"), "addresses[0]: "),
        (("keys", "create", "alice", "--metadata", "team"), "name=value"),
        (("keys", "list", "--status", "dead"), "status: "),
        (("calls", "show", "12"), "X-Request-Id"),
        (("calls", "show", "0" * 32), "never was, still runs"),
        (("calls", "refund", "0" * 32), "never was, still runs"),
        (("routes", "show", "sugest"), 'did you mean "suggest"?'),
        (("plans", "show", "fre"), 'did you mean "free"?'),
        (("plans", "delete", "free"), "tollkeeper apply"),
        (("routes", "create", "--file", "no.toml"), "no.toml can't be read"),
        (("routes", "dry-run"), "--file"),
        (("usage", "--by", "week"), "hour, day, month"),
        (("audit", "bob"), "no account"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(
    cli: CommandLine, words: tuple[str, ...], message: str
) -> None:
    await cli("apply")
    await cli("accounts", "create", "alice")
    answer = await cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert answer.err.startswith("tollkeeper: ")
    assert answer.err.count("\n") == 1
    assert len((await cli.json("accounts", "list"))["accounts"]) == 1


async def test_every_mistake_of_a_config_is_told_at_once(
    command_line: Callable[..., CommandLine],
) -> None:
    cli = command_line("embedded", "embedded", offer="[platfrom]\n[[routes]]\nname = 'x'\n")
    answer = await cli("apply")
    assert answer.code == 2
    assert "platfrom" in answer.err
    assert "routes[x]" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("redis", "postgres", "where"),
    [
        (None, "postgresql://toll:s3cret@127.0.0.1:1/toll", "Postgres at 127.0.0.1:1"),
        ("redis://:s3cret@127.0.0.1:1", None, "Redis at redis://127.0.0.1:1"),
    ],
)
async def test_an_absent_server_is_named_without_its_password(
    command_line: Callable[..., CommandLine],
    clean_redis_url: str,
    postgres_url: str,
    redis: str | None,
    postgres: str | None,
    where: str,
) -> None:
    cli = command_line(redis or clean_redis_url, postgres or postgres_url)
    answer = await cli("apply")
    assert answer.code == 1
    assert where in answer.err
    assert "s3cret" not in answer.err
    assert answer.err.count("\n") == 1


async def test_a_database_without_tables_says_to_migrate_and_migrate_makes_them(
    command_line: Callable[..., CommandLine], clean_redis_url: str, blank_postgres_url: str
) -> None:
    cli = command_line(clean_redis_url, blank_postgres_url)
    answer = await cli("accounts", "list")
    assert (answer.code, "tollkeeper migrate" in answer.err) == (2, True)
    assert "0001_" in (await cli("migrate")).out
    assert (await cli("apply")).code == 0


async def test_without_a_pepper_no_account_is_left_half_made(
    command_line: Callable[..., CommandLine], clean_redis_url: str, postgres_url: str
) -> None:
    cli = command_line(clean_redis_url, postgres_url, pepper=False)
    await cli("apply")
    answer = await cli("accounts", "create", "alice", "--key")
    assert (answer.code, "gateway.key_pepper" in answer.err) == (2, True)
    assert (await cli.json("accounts", "list"))["accounts"] == []


async def test_without_data_nothing_is_started(command_line: Callable[..., CommandLine]) -> None:
    cli = command_line("embedded", "embedded")
    answer = await cli("accounts", "list")
    assert (answer.code, "tollkeeper dev" in answer.err) == (2, True)
    assert not cli.data_dir.exists()


async def test_while_dev_runs_its_servers_and_its_pepper_are_used(
    running_dev: CommandLine,
) -> None:
    await running_dev("apply")
    made = await running_dev.json("accounts", "create", "alice", "--key")
    assert made["key"]["secret"].startswith("tk_dev_")
    assert await running_dev.json("audit") == {"clean": True, "accounts": 1, "findings": []}


async def test_the_audit_shows_what_disagrees_and_exits_with_1(
    cli: CommandLine, clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.operations.audit_look.LOOK_PAUSE_S", 0)
    assert SHARDS == 4  # as in the config
    async with running_deployment(clean_redis_url, postgres_url) as deployment:
        caller: Caller = await deployment.caller("alice", 5_000_000)
        await deployment.call(caller)
        await deployment.carry()
        (grant,) = await deployment.ledger.grants(caller.account.account_id)
        field = f"a:{grant.grant_id}"
        await deployment.counters.command("HINCRBY", caller.keys.name, field, 1)
    people, program = await cli("audit"), await cli("audit", "--json")
    assert (people.code, program.code) == (1, 1)
    assert "5.000001" in people.out
    assert "alice" in people.out
    (finding,) = json.loads(program.out)["findings"]
    assert finding | {"meaning": ""} == {
        "invariant": "I1",
        "check": "redis_lot_sum",
        "platform": "demo",
        "account": "alice",
        "subject": f"grant {grant.grant_id}",
        "expected": "5",
        "found": "5.000001",
        "meaning": "",
    }


def test_what_nobody_foresaw_is_a_line_without_details(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("postgresql://toll:s3cret@db/toll")

    monkeypatch.setattr("gateway.cli.app.app", broken)
    with pytest.raises(SystemExit) as ended:
        gateway.cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "internal error (RuntimeError)" in said
    assert "s3cret" not in said
    assert said.count("\n") == 1
