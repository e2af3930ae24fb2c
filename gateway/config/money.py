"""What plans and packs cost in money, as the config and the API write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.money import Money, parse_money, parse_overage_price

if TYPE_CHECKING:
    from gateway.config.section import Section
    from policies.money import OveragePrice

FEATURES_MAX = 20
FEATURE_CHARACTERS_MAX = 80


def read_amounts(section: Section, key: str) -> tuple[Money, ...]:
    """An amount with its currency, or a list of them, each in another currency."""
    if key not in section:
        return ()
    written = section.value(key)
    texts = [written] if isinstance(written, str) else written
    if not isinstance(texts, list):
        section.complain(key, 'must be an amount such as "19.00 usd", or a list of them')
        return ()
    found: dict[str, Money] = {}
    for text in texts:
        if not isinstance(text, str):
            section.complain(key, 'amounts are texts, with their currency: "19.00 usd"')
            continue
        try:
            money = parse_money(text)
        except ValueError as error:
            section.complain(key, str(error))
            continue
        if money.amount_minor == 0:
            section.complain(key, f'"{text}" can\'t be charged: leave out what costs nothing')
            continue
        if money.currency in found:
            section.complain(key, f"has two amounts in {money.currency}")
        found[money.currency] = money
    return tuple(found.values())


def read_overage_price(section: Section) -> OveragePrice | None:
    """What a credit of overage costs; None where it is not billed."""
    if "overage_price" not in section:
        return None
    return section.parsed("overage_price", parse_overage_price, None)


def read_features(section: Section) -> tuple[str, ...]:
    """What else a plan has, in words of people."""
    features = section.texts("features")
    if len(features) > FEATURES_MAX:
        section.complain("features", f"are at most {FEATURES_MAX}")
    for feature in features:
        mistake = _mistake(feature)
        if mistake is not None:
            section.complain("features", mistake)
    return tuple(features)


def _mistake(feature: str) -> str | None:
    if not 0 < len(feature) <= FEATURE_CHARACTERS_MAX or not feature.isprintable():
        return f"each is 1 to {FEATURE_CHARACTERS_MAX} printable characters"
    if feature != feature.strip() or ";" in feature:
        return "none begins or ends with a space, or has a semicolon: those are between them"
    return None
