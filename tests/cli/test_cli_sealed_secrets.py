"""`tollkeeper secrets`: values go in by a prompt or stdin, and never come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role
from gateway.identity.master_key import new_master_key
from gateway.identity.seal import Sealer

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.cli.conftest import CommandLine
    from tests.support.api import Api
    from tests.support.remote_cli import Remote

VALUE = "Bearer sk-canary-123"


async def test_a_secret_is_set_listed_and_deleted_but_never_shown(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    answers = [
        await remote("secrets", "set", "openai", stdin=f"{VALUE}\n"),
        await remote("secrets", "set", "openai", "--json", stdin=VALUE),
        await remote("secrets", "list"),
        await remote("secrets", "list", "--json"),
        await remote("secrets", "delete", "openai"),
        await remote("secrets", "list"),
    ]

    assert [answer.code for answer in answers] == [0] * 6
    assert answers[3].document["secrets"][0]["name"] == "openai"
    assert answers[5].out == "There are no secrets yet.\n"
    assert "canary" not in "".join(answer.out + answer.err for answer in answers)


async def test_a_value_that_is_wrong_is_not_told_either(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    answer = await remote("secrets", "set", "openai", stdin=f"{VALUE}\nsecond line")

    assert answer.code == 2
    assert "canary" not in answer.out + answer.err
    empty = await remote("secrets", "set", "openai", stdin="")
    assert (empty.code, empty.err.count("\n")) == (2, 1)


async def test_a_value_is_no_argument(remote: Remote) -> None:
    assert (await remote("secrets", "set", "openai", VALUE)).code == 2


async def test_a_master_key_is_replaced_by_another(
    api: Api,
    command_line: Callable[..., CommandLine],
    clean_redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await api.as_("owner").put("/v1/secrets/openai", {"value": VALUE})
    first = api.credentials.master_key
    second = new_master_key()
    line = command_line(clean_redis_url, api.postgres_url)
    text = line.config.read_text()
    own = 'shards = 4\nmaster_key = "env:TEST_MASTER_KEY"\n'
    line.config.write_text(text.replace("shards = 4\n", own))

    monkeypatch.setenv("TEST_MASTER_KEY", second)
    alone = await line("secrets", "reseal")
    monkeypatch.setenv("TEST_MASTER_KEY", f"{second},{first}")
    done = await line("secrets", "reseal")
    monkeypatch.setenv("TEST_MASTER_KEY", second)
    again = await line.json("secrets", "reseal")

    assert (alone.code, "master key" in alone.err) == (2, True), "who has the new one alone is told"
    assert done.out == "Sealed anew: 1 secrets, 1 signing keys.\n"
    assert again == {"secrets": 1, "signing_keys": 1}
    (sealed,) = await api.ledger.sealed_secrets()
    assert Sealer.of(second).open(sealed.sealed).decode() == VALUE
