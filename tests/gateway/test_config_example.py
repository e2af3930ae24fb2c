"""The documented example at the root: everything that is commented out can be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import load_config

LINES = (Path(__file__).parents[2] / "config.toml").read_text().splitlines()
OPTION = re.compile(r"# ([a-z_0-9]+) = ")
TABLE = re.compile(r"# \[")
# A table goes on with its keys; that of prices with its cases.
BELOW = re.compile(r"# (?:[a-z_0-9]+ = |\[routes\.price\.table\.)")
# What else has to be changed for an option to make sense.
SIGNUP = ("# signup_plan = ", "signup_plan = ")
TOO = {
    "trial_credits": [SIGNUP, ("# trial_days = 14", "trial_days = 14")],
    "trial_days": [SIGNUP, ('# trial_credits = "100"', 'trial_credits = "100"')],
    "rollover_periods": [("# rollover = ", "rollover = ")],
    "tiers": [('credits_per_unit = "0.001"', "")],
    "[routes.a2a]": [('# protocol = "http"', 'protocol = "a2a"')],
    "[routes.websocket]": [
        ('# protocol = "http"', 'protocol = "websocket"'),
        ('"POST /v1/chat/completions"', '"GET /v1/chat"'),
        ('"response.json:/usage/total_tokens", "response.sse:/usage/total_tokens"', '"duration:s"'),
    ],
}
# Names a file that is not there.
NOT_HERE = {"tls_ca_file"}


def options() -> dict[str, tuple[int, int]]:
    """Each table or key that is commented out: its first line, and the one behind its last."""
    found = {}
    number = 0
    while number < len(LINES):
        begin = number
        number += 1
        line = LINES[begin]
        if TABLE.match(line):
            while number < len(LINES) and BELOW.match(LINES[number]):
                number += 1
            name = line.removeprefix("# ").partition("  ")[0]
        elif match := OPTION.match(line):
            name = match[1]
        else:
            continue
        if name not in NOT_HERE:
            found[f"{name} {begin}"] = (begin, number)
    return found


OPTIONS = options()


def test_the_example_shows_every_part_of_a_price() -> None:
    names = {name.partition(" ")[0] for name in OPTIONS}
    assert names >= {"tiers", "included_units", "reserve_from", "on_missing", "estimate_from"}
    assert names >= {"[routes.price.table]", "[routes.price.outcome]", "[routes.price.jsonrpc]"}
    assert names >= {"protocol", "ensure_usage", "[routes.a2a]", "[routes.websocket]", "discount"}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_that_is_commented_out_can_be_used(tmp_path: Path, name: str) -> None:
    begin, end = OPTIONS[name]
    used = [line.removeprefix("# ") for line in LINES[begin:end]]
    text = "\n".join([*LINES[:begin], *used, *LINES[end:]])
    for old, new in TOO.get(name.partition(" ")[0], []):
        assert old in text
        text = text.replace(old, new, 1)
    file = tmp_path / "config.toml"
    file.write_text(text)
    load_config(file)
