"""`tollkeeper issuers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote

ISSUER = "https://login.example/"
KEYS = "http://127.0.0.1:9100/jwks"


async def test_an_issuer_is_trusted_changed_and_removed_by_its_name(
    api: Api, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    words = ("issuers", "add", ISSUER, "--jwks-url", KEYS, "--claim", "account")
    made = (await remote.json(*words))["issuer"]

    assert (made["issuer"], made["audience"]) == (ISSUER, "tollkeeper:demo")
    algorithms = ("--algorithm", "ES256", "--algorithm", "EdDSA")
    changed = (await remote.json("issuers", "change", ISSUER, *algorithms))["issuer"]
    assert changed == made | {"algorithms": ["ES256", "EdDSA"]}
    assert (await remote.json("issuers", "list"))["issuers"] == [changed]
    assert "ES256, EdDSA" in (await remote("issuers", "list")).out

    assert (await remote("issuers", "remove", str(made["id"]))).code == 0
    assert (await remote("issuers", "remove", str(made["id"]))).code == 0  # again does no harm
    assert (await remote("issuers", "list")).out == "No issuer is trusted.\n"


async def test_what_is_wrong_is_named(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])

    assert "there is no issuer" in (await remote("issuers", "remove", ISSUER)).err
    assert "nothing would change" in (await remote("issuers", "change", "3")).err
    wrong = await remote("issuers", "add", ISSUER, "--jwks-url", KEYS, "--algorithm", "none")
    assert (wrong.code, "algorithms" in wrong.err) == (2, True)
