"""The whole API does what its description says, whatever it is sent (schemathesis, bounded)."""

from __future__ import annotations

import asyncio
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from gateway.upstream import dial
from tests.control.test_access import places_of
from tests.support.resolver import resolving

if TYPE_CHECKING:
    from tests.support.api import Api

EXAMPLES_MAX = 6  # per operation
TIME_MAX_S = 600  # beside other tests, with one core between them
# What a description can't say: that a route's price makes sense, that a plan is there.
CHECKS_LEFT_OUT = "positive_data_acceptance"


PUBLIC_ADDRESS = "93.184.215.14"


@pytest.fixture
async def nobody_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agents and issuers that are made up here are neither looked for nor waited for."""

    async def refuse(_addresses: list[dial.Address]) -> NoReturn:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    resolving(monkeypatch, [PUBLIC_ADDRESS])
    monkeypatch.setattr(dial, "_race", refuse)


@pytest.mark.parametrize("role", ["owner", "admin"])
async def test_the_api_is_as_it_is_described(
    api: Api, nobody_outside: None, role: str, tmp_path: Path
) -> None:
    await places_of(api, api.demo)
    for limiter in (api.services.failures, api.services.logins):
        limiter._per_minute = 10**6  # what is refused here is not to be told from what is too often
    command = (
        *(str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run"),
        *("--header", f"Authorization: Bearer {api.as_(role).credential}"),
        *("--checks", "all", "--exclude-checks", CHECKS_LEFT_OUT),
        *("--phases", "examples,coverage,fuzzing,stateful"),
        *("--exclude-path", "/v1/traffic"),  # takes a second for each example
        *("--max-examples", str(EXAMPLES_MAX), "--seed", "5", "--workers", "1"),
        *("--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"),
        f"{api.url}/openapi.json",
    )
    child = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(TIME_MAX_S):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == 0, output.decode()
