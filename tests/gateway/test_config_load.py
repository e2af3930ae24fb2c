"""The config file: everything at once, nothing guessed, no secret shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
import trustme

from gateway.config import (
    Config,
    ConfigError,
    GatewayConfig,
    load_config,
    parse_listen,
    resolve_secret,
)
from policies import pricing
from policies.catalog import DEFAULT_RULES, Ending, ErrorStyle, Rule, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Config]:
    def from_text(text: str) -> Config:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return load_config(file)

    return from_text


def problems_of(load: Callable[[str], Config], text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return dict(caught.value.problems)


def test_an_empty_file_is_the_defaults(load: Callable[[str], Config]) -> None:
    config = load("")
    assert config.gateway == GatewayConfig()
    assert config.platform.slug == "demo"
    assert (config.plans, config.routes) == ((), ())


def test_the_example_at_the_root_offers_what_the_readme_tells() -> None:
    config = load_config(ROOT / "config.toml")
    assert config.gateway == GatewayConfig(private_upstreams=("127.0.0.0/8", "::1/128"))
    plan, paid = config.plans
    assert paid.prices
    assert config.packs[0].prices
    assert (plan.slug, plan.credits_microcredits) == ("free", 1_000_000_000)
    assert (plan.requests_per_minute, plan.requests_per_month, plan.concurrency) == (
        600,
        100_000,
        50,
    )
    ceilings = {
        route.name: None if route.price is None else pricing.ceiling(route.price)
        for route in config.routes
    }
    assert ceilings == {"chat": 4_100_000, "image": 50_000_000, "suggest": 100_000, "health": None}
    assert {route.upstream for route in config.routes} == {"http://127.0.0.1:9100"}
    assert config.routes[0].rules == DEFAULT_RULES


def test_every_commented_default_of_the_example_is_the_default(
    load: Callable[[str], Config],
) -> None:
    lines = (ROOT / "config.toml").read_text().partition("[platform]")[0].splitlines()
    options = {field.name for field in dataclasses.fields(GatewayConfig)}
    written = [line.removeprefix("# ") for line in lines]
    settings = [line for line in written if line.partition(" ")[0] in options]
    assert {line.partition(" ")[0] for line in settings} == options
    config = load("[gateway]\n" + "\n".join(settings))
    shown = dataclasses.replace(
        config.gateway, key_pepper=None, master_key=None, private_upstreams=()
    )
    assert shown == GatewayConfig()


def test_the_deployment_survives_the_way_to_a_worker(load: Callable[[str], Config]) -> None:
    config = load(
        '[gateway]\nheader_timeout_s = 0.5\nredis_url = "rediss://u:p@[::1]:6379/1"\n'
        'private_upstreams = ["10.0.0.0/8"]\ntrusted_proxies = ["fd00::/8"]'
    )
    assert GatewayConfig(**orjson.loads(orjson.dumps(config.gateway))) == config.gateway


ROUTE = """
[[routes]]
name = "chat"
match = "POST|PUT /v1/{model}/chat"
upstream = "https://Agent.example:8443/base/"
timeout_s = 0.5
connect_timeout_s = 1
first_byte_timeout_s = 2.25
idle_timeout_s = 3
errors = "openai"
body_max_bytes = 0
connections_max = 7
tls_ca_file = "ca.pem"
[routes.headers]
Authorization = "env:AGENT_KEY"
X-Literal = "plain"
X-From-File = "file:key.txt"
[routes.price]
per_request = "0.1"
minimum = "0.05"
maximum = "9"
[[routes.price.meters]]
unit = "token"
from = ["response.json:/usage/total_tokens", "response.sse:/usage/total_tokens"]
credits_per_unit = "0.000000000001"
reserve_units = 4000
[routes.on]
completed = "reserved"
unknown = "nothing"
"""


def test_a_route_with_everything_is_read_exactly(
    load: Callable[[str], Config], tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (route,) = load(ROUTE).routes
    assert (route.methods, route.pattern) == (("POST", "PUT"), "/v1/{model}/chat")
    assert route.upstream == "https://Agent.example:8443/base"
    assert route.timeouts == Timeouts(1_000, 2_250, 3_000, 500)
    assert (route.errors, route.body_max_bytes, route.connections_max) == (ErrorStyle.OPENAI, 0, 7)
    assert route.tls_ca_file == str(tmp_path / "ca.pem")
    assert route.headers == (
        ("Authorization", "env:AGENT_KEY"),
        ("X-Literal", "plain"),
        ("X-From-File", f"file:{tmp_path}/key.txt"),
    )
    assert route.rules[Ending.COMPLETED] is Rule.RESERVED
    assert route.rules[Ending.UNKNOWN] is Rule.NOTHING
    assert route.rules[Ending.CLIENT_ERROR] is DEFAULT_RULES[Ending.CLIENT_ERROR]
    assert route.price is not None
    assert route.price.maximum_microcredits == 9_000_000
    (meter,) = route.price.meters
    assert meter.picocredits_per_unit == 1
    assert [str(source) for source in meter.sources] == [
        "response.json:/usage/total_tokens",
        "response.sse:/usage/total_tokens",
    ]


def test_all_mistakes_are_reported_at_once(load: Callable[[str], Config]) -> None:
    problems = problems_of(
        load,
        """
        extra = 1
        [gateway]
        workers = true
        proxy_listn = "x"
        [[plans]]
        slug = "free"
        credits = 1000
        [[routes]]
        match = "POST /a"
        upstream = "ftp://x"
        """,
    )
    assert problems == {
        "gateway.workers": "must be a whole number, not true",
        "gateway.proxy_listn": 'unknown key; did you mean "proxy_listen"?',
        "plans[free].credits": 'amounts are texts, because floats lose credits: write "1000"',
        "routes[#1].upstream": '"ftp://x" must be http:// or https:// and a host',
        "routes[#1].name": "is missing",
        "routes[#1].price": "is missing: no price, no service; or say free = true",
        "extra": "unknown key; there is gateway, platform, plans, packs, stripe, routes",
    }


def test_networks_are_read_as_cidrs(load: Callable[[str], Config]) -> None:
    config = load('[gateway]\nprivate_upstreams = ["10.0.0.0/8", "192.168.1.7", "FD00:1::/32"]')
    assert config.gateway.private_upstreams == ("10.0.0.0/8", "192.168.1.7/32", "fd00:1::/32")
    assert load("[gateway]\nprivate_upstreams = []").gateway.private_upstreams == ()
    assert load('[gateway]\ntrusted_proxies = ["::1"]').gateway.trusted_proxies == ("::1/128",)


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ('"10.0.0.0/8"', "must be a list"),
        ("[10]", "list of texts"),
        ('["10.0.0.1/8"]', "no network"),
        ('["agent.internal"]', "no network"),
        ('["10.0.0.0/33"]', "no network"),
        ('["fe80::1%eth0"]', "no network"),
        ('["::ffff:10.0.0.0/104"]', "write them as such"),
        ('["10.0.0.0/8", ""]', "no network"),
    ],
)
def test_networks_that_are_none_are_mistakes(
    load: Callable[[str], Config], networks: str, message: str
) -> None:
    problems = problems_of(load, f"[gateway]\nprivate_upstreams = {networks}")
    assert message in problems["gateway.private_upstreams"]


def test_a_config_error_reads_as_one_line_per_mistake(load: Callable[[str], Config]) -> None:
    with pytest.raises(ConfigError) as caught:
        load("a = 1\nb = 2")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "can't be read: No such file"), (b"a = ", "not valid TOML"), (b"\xff", "UTF-8")],
)
def test_a_file_that_is_no_config_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "config.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file)
    assert caught.value.problems[0].where == str(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('proxy_listen = "8080"', "must be a host and a port"),
        ('proxy_listen = "::1:8080"', "in brackets"),
        ('proxy_listen = "localhost:65536"', "must be a host and a port"),
        ('proxy_listen = "localhost:\u0663"', "must be a host and a port"),
        ('control_listen = "127.0.0.1:8080"', "same address as proxy_listen"),
        ("workers = 0", "must be from 1 to 256, not 0"),
        ("shards = 1.0", "must be a whole number, not 1.0"),
        ("header_timeout_s = 0", "must be from 0.001"),
        ("header_timeout_s = nan", "must be from 0.001"),
        ("header_timeout_s = inf", "must be from 0.001"),
        ('header_timeout_s = "5"', "must be a number of seconds, not a text"),
        ("header_timeout_s = true", "must be a number of seconds, not true"),
        ('redis_url = "redis+cluster://:hidden@h"', 'must be "embedded" or a URL'),
        ('redis_url = "redis://:hidden@"', "needs a host"),
        ('redis_url = "redis://:hidden@h:port"', "is not a valid URL"),
        ('redis_url = "redis://:hidden@h\\n"', "visible ASCII"),
        ('redis_url = "unix://"', "needs the path of a socket"),
        ('postgres_url = "mysql://u:hidden@h"', 'must be "embedded" or a URL'),
        ('postgres_url = "env:TOLLKEEPER_NOT_SET"', "environment variable is not set"),
        ('key_pepper = "hidden"', "is a secret: refer to it"),
        ('master_key = "hidden"', "is a secret: refer to it"),
        ('key_pepper = "env:A-B"', "needs the name of an environment variable"),
        ("redis_url = 5", "must be a text, not 5"),
    ],
)
def test_a_deployment_that_cannot_run_is_refused_without_showing_secrets(
    load: Callable[[str], Config], line: str, message: str
) -> None:
    ((where, found),) = problems_of(load, f"[gateway]\n{line}").items()
    assert where == f"gateway.{line.partition(' ')[0]}"
    assert message in found
    assert "hidden" not in found


def test_passwords_stay_out_of_the_repr(load: Callable[[str], Config]) -> None:
    redis, postgres = "redis://:hidden@h", "postgresql://u:hidden@h/db"
    config = load(f'[gateway]\nredis_url = "{redis}"\npostgres_url = "{postgres}"')
    assert (config.gateway.redis_url, config.gateway.postgres_url) == (redis, postgres)
    assert "hidden" not in repr(config)


def test_both_sides_may_ask_for_any_free_port(load: Callable[[str], Config]) -> None:
    gateway = load('[gateway]\nproxy_listen = "[::1]:0"\ncontrol_listen = "[::1]:0"').gateway
    assert gateway.proxy_listen == gateway.control_listen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    ("table", "where", "message"),
    [
        ('[platform]\nslug = "De mo"', "platform.slug", "must be up to 63"),
        ('[platform]\nupgrade_url = "javascript:x"', "platform.upgrade_url", "must be a URL"),
        ('[[plans]]\ncredits = "1"', "plans[#1].slug", "is missing"),
        ('[[plans]]\nslug = "a"\ncredits = "-1"', "plans[a].credits", "not a plain decimal"),
        ('[[plans]]\nslug = "a"\nperiod = "week"', "plans[a].period", "not a period"),
        ('[[plans]]\nslug = "a"\noverage = "free"', "plans[a].overage", 'there is "block" and'),
        ('[[plans]]\nslug = "a"\nconcurrency = -1', "plans[a].concurrency", "must be from 0"),
        ('[[plans]]\nslug = "a"\n[[plans]]\nslug = "a"', "plans[a].slug", "already the slug"),
        ("[plans]", "plans", "must be a list, not a table"),
        ("plans = [1]", "plans", "must be a list of tables, each opened by [[plans]]"),
        ("gateway = 2026-01-01", "gateway", "must be a table, not 2026-01-01"),
    ],
)
def test_a_platform_or_plan_that_cannot_be_sold_is_refused(
    load: Callable[[str], Config], table: str, where: str, message: str
) -> None:
    assert message in problems_of(load, table)[where]


def test_server_urls_may_be_references(
    load: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLKEEPER_TEST_REDIS", "unix:///run/redis.sock")
    (tmp_path / "pg").write_text("postgresql:///db?host=/run\n")
    urls = 'redis_url = "env:TOLLKEEPER_TEST_REDIS"\npostgres_url = "file:pg"'
    gateway = load(f"[gateway]\n{urls}").gateway
    assert gateway.redis_url == "unix:///run/redis.sock"
    assert gateway.postgres_url == "postgresql:///db?host=/run"


def test_a_secret_comes_from_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLKEEPER_TEST_SECRET", " s3cret\n")
    (tmp_path / "key").write_text("from file\n")
    assert resolve_secret("env:TOLLKEEPER_TEST_SECRET") == "s3cret"
    assert resolve_secret(f"file:{tmp_path}/key") == "from file"
    assert resolve_secret("literal") == "literal"


@pytest.mark.parametrize(
    "content", [None, b"", b"two\nlines", b"nul\0", "ü".encode(), b"x" * 65_537]
)
def test_a_secret_that_could_split_a_header_is_refused_without_being_shown(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        resolve_secret(f"file:{file}")
    ((where, message),) = caught.value.problems
    assert where == f"file:{file}"
    assert "lines" not in message
