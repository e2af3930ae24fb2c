"""`/v1/issuers`, by status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.api import Api

ISSUERS = "/v1/issuers"
LOGIN = {"issuer": "https://login.example/", "jwks_url": "http://127.0.0.1:9100/jwks"}


async def test_201_an_issuer_is_trusted_for_this_platform(api: Api) -> None:
    client = api.as_("owner")
    made = await client.post(ISSUERS, LOGIN)

    assert made.status == 201, made.body
    document = dict(made.body)
    assert document.pop("created_at")
    assert document == {
        **LOGIN,
        "id": made.body["id"],
        "audience": "tollkeeper:demo",
        "account_claim": "sub",
        "algorithms": ["RS256"],
    }
    path = f"{ISSUERS}/{made.body['id']}"
    assert (await api.as_("viewer").get(path)).body == made.body
    assert (await api.as_("viewer").get(ISSUERS)).body["data"] == [made.body]


async def test_200_a_patch_says_what_is_different(api: Api) -> None:
    client = api.as_("owner")
    made = await client.post(ISSUERS, LOGIN)
    path = f"{ISSUERS}/{made.body['id']}"
    patch = {"account_claim": "email", "algorithms": ["ES256", "EdDSA"]}
    changed = await client.patch(path, patch, headers={"If-Match": (await client.get(path)).etag})

    assert changed.status == 200, changed.body
    assert changed.body == {**made.body, **patch}


async def test_204_an_issuer_is_trusted_no_more_however_often_that_is_said(api: Api) -> None:
    client = api.as_("owner")
    made = await client.post(ISSUERS, LOGIN)
    path = f"{ISSUERS}/{made.body['id']}"

    assert (await client.delete(path)).status == 204
    assert (await client.delete(path)).status == 204
    assert (await client.get(path)).status == 404
    assert (await client.patch(path, {})).status == 404
    assert (await client.post(ISSUERS, LOGIN)).status == 201


@pytest.mark.parametrize("role", ["editor", "viewer", "member"])
async def test_403_only_owners_say_whom_to_trust(api: Api, role: str) -> None:
    client = api.as_(role)
    assert (await client.post(ISSUERS, LOGIN)).status == 403
    assert (await client.patch(f"{ISSUERS}/1", {})).status == 403
    assert (await client.delete(f"{ISSUERS}/1")).status == 403


async def test_404_the_issuers_of_others_are_not_there(api: Api) -> None:
    made = await api.as_("owner", api.other).post(ISSUERS, LOGIN)
    client = api.as_("owner")
    path = f"{ISSUERS}/{made.body['id']}"
    for answer in (
        await client.get(path),
        await client.patch(path, {"account_claim": "email"}),
        await client.delete(path),
    ):
        assert (answer.status, answer.code) == (404, "not_found")
    assert (await client.get(ISSUERS)).body["data"] == []


async def test_409_an_issuer_is_registered_once(api: Api) -> None:
    client = api.as_("owner")
    await client.post(ISSUERS, LOGIN)
    again = await client.post(ISSUERS, LOGIN)
    assert (again.status, again.code) == (409, "name_taken")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        (
            {"issuer": "", "jwks_url": "ftp://x", "algorithms": []},
            {"issuer", "jwks_url", "algorithms"},
        ),
        ({"algorithms": ["HS256"]}, {"algorithms[0]"}),
        ({"algorithms": ["RS256", "RS256"], "issuer": "tollkeeper:mine"}, {"algorithms", "issuer"}),
        ({"jwks_url": "http://169.254.169.254/latest"}, {"jwks_url"}),
        ({"jwks_url": "http://192.0.2.1/jwks"}, {"jwks_url"}),
        ({"jku": "https://x.example"}, {"jku"}),
    ],
)
async def test_422_every_wrong_field_is_named(
    api: Api, changes: dict[str, object], wrong: set[str]
) -> None:
    answer = await api.as_("owner").post(ISSUERS, {**LOGIN, **changes})
    assert answer.status == 422
    assert set(answer.wrong) == wrong
