"""Routes and prices of a config: an impossible or unpriced one is refused, by its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, ConfigError, load_config
from gateway.config.match import parse_match, shape

if TYPE_CHECKING:
    from pathlib import Path

METER = """
[[routes.price.meters]]
unit = "token"
from = "response.json:/usage/total_tokens"
credits_per_unit = "0.001"
reserve_units = 10
"""


def load(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text)
    return load_config(file)


def problems_of(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return dict(caught.value.problems)


def route(changes: str = "", *, price: str = '[routes.price]\nper_request = "1"') -> str:
    """A good route; `changes` replaces or adds keys, `price` its price."""
    keys = {"name": '"chat"', "match": '"POST /chat"', "upstream": '"http://127.0.0.1:9100"'}
    keys |= dict(line.split(" = ", 1) for line in changes.splitlines() if line)
    body = "\n".join(f"{key} = {value}" for key, value in keys.items())
    return f"[[routes]]\n{body}\n{price}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("POST /v1/chat/completions", (("POST",), "/v1/chat/completions")),
        ("GET|POST  /agents/{id}/runs", (("GET", "POST"), "/agents/{id}/runs")),
        ("* /files/**", ((), "/files/**")),
        ("* /**", ((), "/**")),
        ("GET /", (("GET",), "/")),
        ("GET /a/", (("GET",), "/a/")),
        ("GET /.well-known/agent.json", (("GET",), "/.well-known/agent.json")),
    ],
)
def test_a_match_is_methods_and_a_pattern(text: str, expected: tuple[tuple[str, ...], str]) -> None:
    assert parse_match(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/chat", "must be methods and a path"),
        ("POST /a b", "must be methods and a path"),
        ("post /chat", 'did you mean "POST"?'),
        ("CONNECT /chat", "not a method here"),
        ("GET|GET /chat", "names a method twice"),
        ("GET| /chat", "not a method here"),
        ("POST chat", 'must start with "/"'),
        ("POST /-/healthz", "belong to the gateway"),
        ("POST /a//b", 'the segment ""'),
        ("POST //", 'the segment ""'),
        ("POST /a//**", 'the segment ""'),
        ("POST /a/../b", 'the segment ".."'),
        ("POST /a/./b", 'the segment "."'),
        ("POST /**/b", 'the segment "**"'),
        ("POST /a*", 'the segment "a*"'),
        ("POST /a%20b", 'the segment "a%20b"'),
        ("POST /a;b", 'the segment "a;b"'),
        ("POST /ü", 'the segment "ü"'),
        ("POST /a{id}", 'the segment "a{id}"'),
        ("POST /{}", 'the segment "{}"'),
        ("POST /a?b=c", 'the segment "a?b=c"'),
        ("POST /{id}/{id}", "two parameters of one name"),
    ],
)
def test_a_match_that_is_not_one_canonical_path_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in problems_of(tmp_path, route(f'match = "{text}"'))["routes[chat].match"]


def test_patterns_that_differ_only_in_names_have_one_shape() -> None:
    assert shape("/a/{x}/b/**") == shape("/a/{y}/b/**") != shape("/a/x/b/**")


def test_two_routes_for_the_same_calls_are_a_mistake(tmp_path: Path) -> None:
    first = route('match = "GET|POST /a/{id}"')
    second = route('name = "other"\nmatch = "POST /a/{name}"')
    problems = problems_of(tmp_path, first + second)
    assert problems == {"routes[other].match": 'matches the same calls as the route "chat"'}


def test_a_more_specific_route_beside_a_general_one_is_fine(tmp_path: Path) -> None:
    matches = ["POST /a/{id}", "GET /a/{id}", "* /a/{id}", "POST /a/b", "POST /a/**", "* /**"]
    text = "".join(
        route(f'name = "r{index}"\nmatch = "{match}"') for index, match in enumerate(matches)
    )
    assert len(load(tmp_path, text).routes) == len(matches)


@pytest.mark.parametrize(
    "upstream",
    [
        "http://localhost",
        "https://agent.example:8443",
        "http://[::1]:9100/base/v1",
        "http://agent_1.internal",
    ],
)
def test_an_upstream_is_kept_as_it_is(tmp_path: Path, upstream: str) -> None:
    assert load(tmp_path, route(f'upstream = "{upstream}"')).routes[0].upstream == upstream


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ("127.0.0.1:9100", "must be http://"),
        ("ftp://h", "must be http://"),
        ("http://", "must be http://"),
        ("http://user:hidden@h", "has a user or password"),
        ("http://h:99999", "is not a valid URL"),
        ("http://h:0", "no proper host and port"),
        ("http://h:", "no proper host and port"),
        ("http://a b", "visible ASCII"),
        ("http://ü", "visible ASCII"),
        ("http://a{b", "no proper host and port"),
        ("", "must be http://"),
        ("http://[::1", "is not a valid URL"),
        ("http://[1:2:3]", "is not a valid URL"),
        ("http://h/a?b", 'no "?"'),
        ("http://h/#", 'no "?"'),
        ("http://h/a/../b", "dot segments"),
        ("http://h//a", "dot segments"),
        ("http://h/%61", "escapes"),
        ("http://h\\r\\nx", "visible ASCII"),
    ],
)
def test_an_upstream_that_cannot_be_called_is_refused(
    tmp_path: Path, upstream: str, message: str
) -> None:
    found = problems_of(tmp_path, route(f'upstream = "{upstream}"'))["routes[chat].upstream"]
    assert message in found
    assert "hidden" not in found


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ('name = "Chat room"', "routes[Chat room].name", "must be up to 63"),
        ("name = 5", "routes[#1].name", "must be a text, not 5"),
        ('errors = "opnai"', "routes[chat].errors", 'did you mean "openai"?'),
        ('errors = "soap"', "routes[chat].errors", "there is problem, openai"),
        ("timeout_s = -1", "routes[chat].timeout_s", "must be from 0.001"),
        ("timeout = 5", "routes[chat].timeout", 'did you mean "timeout_s"?'),
        ("body_max_bytes = -1", "routes[chat].body_max_bytes", "must be from 0"),
        ("connections_max = 0", "routes[chat].connections_max", "must be from 1"),
        ('tls_ca_file = "ca.pem"', "routes[chat].tls_ca_file", "is of no use"),
        ("free = true", "routes[chat].free", "also has a price"),
        ('on = {compleated = "actual"}', "routes[chat].on.compleated", '"completed"'),
        ('on = {completed = "free"}', "routes[chat].on.completed", "there is actual"),
        ('headers = {A_B = "x"}', "routes[chat].headers.A_B", "not a header name"),
        ('headers = {Host = "x"}', "routes[chat].headers.Host", "written by the gateway"),
        ('headers = {x-a = "x", X-A = "y"}', "routes[chat].headers.X-A", "is there twice"),
        ('headers = {X-A = "hidden\\r\\nB: c"}', "routes[chat].headers.X-A", "one line"),
        ('headers = {X-A = "env:"}', "routes[chat].headers.X-A", "environment variable"),
        ('headers = {X-A = "secret:a"}', "routes[chat].headers.X-A", "made by the API"),
        ('headers = {X-A = "file:"}', "routes[chat].headers.X-A", "needs a path"),
        ("headers = {X-A = 5}", "routes[chat].headers.X-A", "must be a text, not 5"),
    ],
)
def test_a_route_that_cannot_work_is_refused(
    tmp_path: Path, changes: str, where: str, message: str
) -> None:
    ((found_where, found),) = problems_of(tmp_path, route(changes)).items()
    assert found_where == where
    assert message in found
    assert "hidden" not in found


def test_an_unusable_certificate_authority_is_noticed_at_start(tmp_path: Path) -> None:
    text = route('upstream = "https://h"\ntls_ca_file = "ca.pem"')
    assert "No such file" in problems_of(tmp_path, text)["routes[chat].tls_ca_file"]
    (tmp_path / "ca.pem").write_text("no certificate")
    assert "can't be used" in problems_of(tmp_path, text)["routes[chat].tls_ca_file"]


def test_two_routes_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, route() + route('match = "GET /other"'))
    assert "already the name" in problems["routes[chat].name"]


def test_no_price_no_service(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, route(price=""))
    assert "no price, no service" in problems["routes[chat].price"]
    assert (
        "no price" in problems_of(tmp_path, route("free = false", price=""))["routes[chat].price"]
    )
    assert load(tmp_path, route("free = true", price="")).routes[0].price is None


@pytest.mark.parametrize(
    ("price", "where", "message"),
    [
        ("", "", "reserve nothing"),
        ('per_request = "0"', "", "reserve nothing"),
        ('per_request = "1"\nmaximum = "0"', "", "reserve nothing"),
        ('minimum = "2"\nmaximum = "1"', "", "below minimum"),
        ("per_request = 0.1", ".per_request", 'write "0.1"'),
        ('per_request = "0.0000001"', ".per_request", "more than 6 decimal places"),
        ('per_request = "9007199255"', ".per_request", "too large"),
        ('per_requst = "1"', ".per_requst", 'did you mean "per_request"?'),
        (METER.replace("10", "0"), "", "reserve nothing"),
        (METER.replace("10", "9007199254740991"), "", "2^53"),
        (METER.replace("10", "-1"), ".meters[token].reserve_units", "must be from 0"),
        (METER.replace("reserve_units = 10", ""), ".meters[token].reserve_units", "is missing"),
        (METER.replace("token", "Token"), ".meters[Token].unit", 'such as "token"'),
        (
            METER.replace("response.json", "duration.h"),
            ".meters[token].from",
            "not a kind of meter",
        ),
        (METER.replace(":/usage", ":usage"), ".meters[token].from", "needs a JSON pointer"),
        (METER.replace('from = "', 'from = 5 #"'), ".meters[token].from", "must be a source"),
        (METER.replace('from = "', 'from = [] #"'), ".meters[token].from", "must be a source"),
        (METER.replace('from = "', 'from = [5] #"'), ".meters[token].from", "list of texts"),
        (
            METER.replace("credits_per_unit", "credits"),
            ".meters[token].credits_per_unit",
            "missing",
        ),
        (METER.replace('"0.001"', "1"), ".meters[token].credits_per_unit", 'write "1"'),
        (METER + 'reserve_from = "x"', ".meters[token].reserve_from", "not a kind"),
        (METER + METER, ".meters[token].unit", "already metered"),
        (
            METER.replace('from = "', 'from = ["response.sse:/a", "response.sse:/a"] #"'),
            ".meters[token].from",
            'names "response.sse:/a" twice',
        ),
    ],
)
def test_a_price_that_cannot_work_is_refused(
    tmp_path: Path, price: str, where: str, message: str
) -> None:
    problems = problems_of(tmp_path, route(price=f"[routes.price]\n{price}"))
    assert message in problems[f"routes[chat].price{where}"]


def test_a_misread_price_is_not_tried_on_top(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, route(price='[routes.price]\nper_request = "O.1"'))
    assert list(problems) == ["routes[chat].price.per_request"]
