"""What is sold for money, as the config says it: prices, trials, packs, gifts to new accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.config.documents import read_pack_document, read_plan_document
from gateway.config.load import load_config
from gateway.config.writing import pack_document, plan_document
from gateway.ledger.specs import pack_from_spec, pack_to_spec, plan_from_spec, plan_to_spec
from policies.catalog import Pack, PlanPrice, Platform
from policies.money import Money, OveragePrice

if TYPE_CHECKING:
    from pathlib import Path

PRO: dict[str, Any] = {
    "slug": "pro",
    "credits": "10000",
    "price_per_month": ["19.00 usd", "1900 jpy"],
    "price_per_year": "190 usd",
    "trial_days": 14,
    "trial_credits": "500",
    "overage": "bill",
    "overage_cap": "500",
    "overage_price": "0.002",
    "features": ["Priority", "5 seats"],
}
PACK = {"slug": "big", "name": "Big", "credits": "500", "validity_days": 90, "price": "10 usd"}


def test_a_plan_for_money_is_read_exactly_and_survives_each_form() -> None:
    plan, problems = read_plan_document(PRO)
    assert problems == []
    assert plan.prices == (
        PlanPrice(1, "usd", 1900),
        PlanPrice(1, "jpy", 1900),
        PlanPrice(12, "usd", 19_000),
    )
    assert (plan.trial_days, plan.trial_microcredits) == (14, 500_000_000)
    assert plan.overage_price == OveragePrice(2_000_000)
    assert plan.features == ("Priority", "5 seats")
    assert read_plan_document(plan_document(plan)) == (plan, [])
    assert plan_from_spec("pro", plan_to_spec(plan)) == plan


def test_a_plan_by_the_year_is_sold_by_the_year() -> None:
    plan, problems = read_plan_document(
        {"slug": "pro", "credits": "1", "period": "year", "price_per_year": "190 usd"}
    )
    assert (plan.period, problems) == ("year", [])


def test_a_pack_is_read_exactly_and_survives_each_form() -> None:
    pack, problems = read_pack_document(PACK)
    assert problems == []
    assert pack == Pack("big", "Big", 500_000_000, 90, (Money("usd", 1000),))
    assert read_pack_document(pack_document(pack)) == (pack, [])
    assert pack_from_spec("big", pack_to_spec(pack)) == pack


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"price_per_month": 19}, "price_per_month"),
        ({"price_per_month": [19]}, "price_per_month"),
        ({"price_per_month": ["19 usd", "20 usd"]}, "price_per_month"),
        ({"price_per_year": "19.999 usd"}, "price_per_year"),
        ({"price_per_year": "0.00 usd"}, "price_per_year"),
        ({"price_per_month": ["19 usd", "0 eur"]}, "price_per_month"),
        ({"price_per_month": "19.00 zzz"}, "price_per_month"),
        ({"period": "year"}, "price_per_month"),
        ({"period": "week"}, "period"),
        ({"trial_days": 731}, "trial_days"),
        ({"trial_days": None}, "trial_credits"),
        ({"overage": "block", "overage_cap": None}, "overage_price"),
        ({"overage_cap": None}, "overage_cap"),
        ({"overage": "bil"}, "overage"),
        ({"overage_price": "0"}, "overage_price"),
        ({"overage_price": 0.002}, "overage_price"),
        ({"features": [""]}, "features"),
        ({"features": ["a;b"]}, "features"),
        ({"features": ["x"] * 21}, "features"),
    ],
)
def test_a_plan_that_can_not_be_meant_is_refused(change: dict[str, Any], where: str) -> None:
    _, problems = read_plan_document({**PRO, **change})
    assert [problem.where for problem in problems] == [where]


def test_a_plan_at_a_price_gives_something_or_bills_what_is_used() -> None:
    """As a product's metadata must: nobody pays for what gives nothing."""
    sold = {"slug": "pro", "credits": "0", "price_per_month": "1.00 usd"}
    for nothing in (sold, {**sold, "credits": None}, {**sold, "overage": "block"}):
        _, (problem,) = read_plan_document(nothing)
        assert problem.where == "credits"
        assert "sells nothing" in problem.message
    for meant in (
        {**sold, "price_per_month": None},
        {**sold, "overage": "bill", "overage_cap": "5"},
    ):
        assert read_plan_document(meant)[1] == []
    _, problems = read_plan_document({**sold, "price_per_month": "0.00 usd"})
    assert [one.where for one in problems] == ["price_per_month"], "without it, it is free"
    _, problems = read_plan_document({**sold, "credits": "many", "overage": "bill"})
    assert [one.where for one in problems] == ["credits", "overage_cap"], "each said once"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"credits": None}, "credits"),
        ({"credits": "0"}, "credits"),
        ({"price": ["0.00 usd"]}, "price"),
        ({"credits": "much"}, "credits"),
        ({"validity_days": 0}, "validity_days"),
        ({"price": "10"}, "price"),
        ({"name": ""}, "name"),
        ({"valid_days": 3}, "valid_days"),
    ],
)
def test_a_pack_that_can_not_be_meant_is_refused(change: dict[str, Any], where: str) -> None:
    _, problems = read_pack_document({**PACK, **change})
    assert [problem.where for problem in problems] == [where]


def test_packs_and_what_new_accounts_get_stand_in_the_config(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[platform]\nslug = "demo"\nsignup_plan = "free"\ntrial_credits = "100"\n'
        '[[packs]]\nslug = "big"\ncredits = "500"\n[[packs]]\nslug = "small"\ncredits = "5"\n'
    )
    config = load_config(file)
    assert config.platform == Platform("demo", "demo", None, "free", 100_000_000, 3)
    assert [pack.slug for pack in config.packs] == ["big", "small"]


def test_mistakes_of_packs_and_the_trial_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[platform]\ntrial_credits = "100"\ntrial_days = 0\n'
        '[[packs]]\nslug = "a"\ncredits = "5"\n[[packs]]\nslug = "a"\ncredits = "0"\n'
    )
    with pytest.raises(Exception, match="signup_plan") as caught:
        load_config(file)
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "platform.trial_days",
        "platform.trial_credits",
        "packs[a].credits",
        "packs[a].slug",
    ]
