"""Logging in to a remote control plane: what is kept, what is shown to whom, and what never is."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from gateway.cli import login_file
from gateway.clock import now_ms
from gateway.control.api.roles import Role
from tests.support.api import ADMIN_TOKEN

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote

COMMANDS_AT_ONCE = 4


async def test_commands_work_where_and_as_whom_one_is_logged_in(api: Api, remote: Remote) -> None:
    assert (await remote("whoami")).code == 2  # there is no config in this folder
    me = await remote.log_in(api.demo.tokens[Role.VIEWER])

    assert (me["role"], me["platform"], me["url"]) == ("viewer", "demo", api.url)
    known = await remote.json("whoami")
    assert (known["role"], known["logged_in"], known["where"]) == ("viewer", True, api.url)
    assert (await remote("whoami")).out == f"viewer, platform demo, on {api.url}\n"


async def test_only_its_owner_can_read_the_login(api: Api, remote: Remote) -> None:
    token = api.demo.tokens[Role.OWNER]
    await remote.log_in(token)

    assert remote.mode == 0o600
    assert token not in remote.file.read_text()


async def test_no_token_is_ever_printed(api: Api, remote: Remote) -> None:
    token = api.demo.tokens[Role.OWNER]
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    answers = [
        await remote("login", api.url, stdin=wrong),
        await remote("login", api.url, stdin=f"{token}\n{token}"),
        await remote("login", api.url, stdin=token),
        await remote("login", api.url, "--json", token=token),
        await remote("whoami", "--json"),
        await remote("whoami", token=wrong),
        await remote("logout", "--json"),
    ]

    assert [answer.code for answer in answers] == [1, 2, 0, 0, 0, 1, 0]
    shown = "".join(answer.out + answer.err for answer in answers)
    assert token[10:] not in shown
    assert wrong[10:] not in shown


async def test_what_people_type_is_not_shown(api: Api, remote: Remote) -> None:
    async with remote.on_terminal("login", api.url) as terminal:
        drawn = await terminal.read()
        assert drawn.endswith("Token: ")
        terminal.type(api.demo.tokens[Role.OWNER] + "\n")
        assert await terminal.code() == 0
        drawn += await terminal.read()
    assert "as owner" in drawn
    assert api.demo.tokens[Role.OWNER] not in drawn


async def test_ctrl_c_at_the_prompt_ends_it_at_once(api: Api, remote: Remote) -> None:
    async with remote.on_terminal("login", api.url) as terminal:
        assert (await terminal.read()).endswith("Token: ")
        terminal.signal(signal.SIGINT)
        assert await terminal.code() == 130
        assert "Traceback" not in await terminal.read()


async def test_a_wrong_token_leaves_the_login_that_there_was(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    failed = await remote("login", api.url, stdin="tt_dev_nonsense")

    assert failed.code == 1
    assert failed.err.count("\n") == 1
    assert (await remote.json("whoami"))["role"] == "owner"


@pytest.mark.parametrize(
    "url",
    [
        *("http://control.example.com", "http://10.0.0.7:8081", "ftp://127.0.0.1", "localhost"),
        *("https://me:secret@control.example.com", "https://a.example?b", "https://a.example:x"),
        "http://127.0.0.1.example.com",
    ],
)
async def test_tokens_are_sent_over_tls_or_to_this_machine_only(remote: Remote, url: str) -> None:
    answer = await remote("login", url, stdin="tt_dev_something")

    assert answer.code == 2
    assert "secret" not in answer.err
    assert not remote.file.exists()


async def test_a_redirect_is_not_followed_with_a_token(remote: Remote) -> None:
    heard = []

    async def elsewhere(request: web.Request) -> web.Response:
        heard.append(await request.text())
        return web.json_response({})

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{request.url.port}/elsewhere")

    app = web.Application()
    app.router.add_route("*", "/elsewhere", elsewhere)
    app.router.add_route("*", "/{any:.*}", moved)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    for token in ("tt_dev_something", "tk_dev_something"):
        answer = await remote("login", f"http://127.0.0.1:{port}", stdin=token)
        assert (answer.code, heard) == (1, [])
    await runner.cleanup()


async def test_the_admin_token_logs_in_on_the_platform_that_is_named(
    api: Api, remote: Remote
) -> None:
    me = await remote.log_in(ADMIN_TOKEN, "--platform", "other")

    assert (me["role"], me["platform"]) == ("operator", "other")
    assert (await remote.json("whoami"))["platform"] == "other"
    assert ADMIN_TOKEN not in remote.file.read_text()


async def test_an_api_key_is_a_login_as_a_member_of_its_account(api: Api, remote: Remote) -> None:
    me = await remote.log_in(api.demo.key.text)

    assert (me["role"], me["account"]["name"]) == ("member", "alice")
    assert me["key"]["id"] == api.demo.key.key_id
    assert remote.mode == 0o600
    assert (await remote.json("logout")) == {"url": api.url, "ended": True}
    assert not remote.file.exists()


async def test_the_token_in_the_variable_is_shown_instead_of_the_login(
    api: Api, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    token = api.demo.tokens[Role.MEMBER]

    assert (await remote.json("whoami", token=token))["role"] == "member"
    assert (await remote.json("whoami"))["role"] == "owner"


async def test_an_access_token_is_refreshed_before_it_is_over(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    before = remote.login
    remote.change_login(expires_ms=now_ms() + login_file.REFRESH_BEFORE_MS - 1)

    assert (await remote.json("whoami"))["role"] == "owner"
    after = remote.login
    assert after["refresh_token"] != before["refresh_token"]
    assert after["expires_ms"] > now_ms() + login_file.REFRESH_BEFORE_MS
    assert remote.mode == 0o600


async def test_commands_at_once_do_not_use_a_refresh_token_twice(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    remote.change_login(expires_ms=1)

    async def whoami() -> int:
        async with remote.started("whoami") as process:
            return (await process.ended()).code

    codes = await asyncio.gather(*(whoami() for _ in range(COMMANDS_AT_ONCE)))

    assert codes == [0] * COMMANDS_AT_ONCE
    assert (await remote.json("whoami"))["logged_in"]  # an old one would have ended it


async def test_a_command_that_runs_for_long_refreshes_too(
    api: Api, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in remote.environment().items():
        monkeypatch.setenv(name, value)
    await remote.log_in(api.demo.tokens[Role.OWNER])
    login = login_file.read_login()
    assert login is not None
    async with login_file.open_remote(login) as client:
        await client.get("/v1/me")
        assert login_file.read_login() == login
        monkeypatch.setattr(login_file, "now_ms", lambda: login.expires_ms)
        found = await asyncio.gather(*(client.get("/v1/me") for _ in range(3)))
        assert {me["role"] for me in found} == {"owner"}
    after = login_file.read_login()
    assert after is not None
    assert after.access_token != login.access_token


async def test_who_logged_in_elsewhere_meanwhile_shows_that_login_to_nobody_else(
    api: Api, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in remote.environment().items():
        monkeypatch.setenv(name, value)
    await remote.log_in(api.demo.tokens[Role.OWNER])
    login = login_file.read_login()
    assert login is not None
    async with login_file.open_remote(login) as client:
        remote.change_login(url="https://elsewhere.example")
        monkeypatch.setattr(login_file, "now_ms", lambda: login.expires_ms)
        with pytest.raises(login_file.UsageError, match="any more"):
            await client.get("/v1/me")


@pytest.mark.parametrize("stale", [False, True])
async def test_a_login_that_is_over_says_in_one_line_to_log_in_again(
    api: Api, remote: Remote, *, stale: bool
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    me = await remote.json("whoami")
    revoked = await api.as_("owner").post(f"/v1/tokens/{me['token_id']}/revoke")
    assert revoked.status == 200
    if stale:
        remote.change_login(expires_ms=1)
    answer = await remote("whoami")

    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert f'run "tollkeeper login {api.url}" again' in answer.err


async def test_logging_out_ends_the_session_and_forgets_it(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    access = remote.login["access_token"]
    remote.change_login(expires_ms=1)  # it is refreshed for that, if it has to be

    assert (await remote("logout")).out == f"Logged out of {api.url}.\n"
    assert not remote.file.exists()
    assert (await api.client(access).get("/v1/me")).status == 401
    assert (await remote("logout")).code == 2


async def test_logging_out_without_the_control_plane_forgets_all_the_same(
    api: Api, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    remote.change_login(url="http://127.0.0.1:9")
    answer = await remote("logout")

    assert (answer.code, remote.file.exists()) == (1, False)
    assert "goes on there" in answer.err


async def test_a_login_that_cannot_be_read_says_what_to_do(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    remote.file.write_text("{}")
    answer = await remote("whoami")

    assert answer.code == 2
    assert 'run "tollkeeper login" again' in answer.err
    assert (await remote.log_in(api.demo.tokens[Role.OWNER]))["role"] == "owner"
