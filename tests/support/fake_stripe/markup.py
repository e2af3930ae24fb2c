"""Plain pages: no script, nothing from elsewhere, every text escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #4f46e5; }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 2rem 1rem }
body.narrow { max-width: 28rem }
h1 { font-size: 1.4rem; margin: 0 0 .25rem } h2 { font-size: 1rem; margin: 2rem 0 .5rem }
p { margin: .5rem 0 } .soft { opacity: .7 } .big { font-size: 1.6rem; font-weight: 600 }
table { border-collapse: collapse; font-size: .9rem; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .5rem .4rem 0; text-align: left;
  vertical-align: top } th { font-weight: 600; opacity: .7 }
td.number, th.number { font-variant-numeric: tabular-nums; text-align: right }
form.inline { display: inline-block; margin: 0 .25rem .25rem 0 }
form.amount input { width: 6rem }
@media (min-width: 50rem) { form.amount { white-space: nowrap } }
form.amount button { margin-left: .25rem }
label { display: block; margin: .75rem 0 }
label.choice { border: 1px solid var(--line); border-radius: .5rem; margin: .4rem 0;
  padding: .5rem }
input[type=text], input[type=email], select { font: inherit; padding: .4rem .5rem; width: 100% }
button { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem;
  color: inherit; cursor: pointer; font: inherit; padding: .3rem .7rem }
button.main { background: var(--accent); border: 0; color: #fff; font-weight: 600; padding: .6rem;
  width: 100% }
.note { background: #d9770633; border-radius: .5rem; padding: .6rem .8rem }
code { font-size: .85em }
"""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Anything as HTML that shows it; HTML stays as it is."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def element(tag: str, *inside: object, **attributes: object) -> Markup:
    """An element. Attributes that are None are left out; `class_` is `class`."""
    shown = _attributes(attributes)
    return Markup(f"<{tag}{shown}>{''.join(text(one) for one in inside)}</{tag}>")


def _attributes(named: Mapping[str, object]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in named.items()
        if value is not None
    )


def page(title: str, *inside: object, narrow: bool = False) -> str:
    """A whole document."""
    body = element("body", *inside, class_="narrow" if narrow else None)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>{body}</html>"
    )


def hidden(values: Mapping[str, object]) -> Markup:
    """Values that a form sends and nobody sees."""
    return Markup(
        "".join(
            f'<input type="hidden" name="{escape(name)}" value="{escape(str(value))}">'
            for name, value in values.items()
        )
    )


def field(name: str, value: str, **attributes: object) -> Markup:
    """A line of text to fill in."""
    shown = _attributes({"type": "text", "name": name, "value": value, **attributes})
    return Markup(f"<input{shown}>")


def button(action: str, label: str, title: str | None = None, **values: object) -> Markup:
    """A button that posts some values."""
    pressed = element("button", label, type="submit", title=title)
    return element("form", hidden(values), pressed, method="post", action=action, class_="inline")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> Markup:
    """A table, or `nothing` when there are no rows. A heading that ends in `#` is of numbers."""
    kept = list(rows)
    if not kept:
        return element("p", nothing, class_="soft")
    kinds = ["number" if heading.endswith("#") else None for heading in headings]
    head = [
        element("th", heading.rstrip("#"), class_=kind)
        for heading, kind in zip(headings, kinds, strict=True)
    ]
    body = [
        element(
            "tr",
            *(element("td", one, class_=kind) for one, kind in zip(row, kinds, strict=True)),
        )
        for row in kept
    ]
    return element("table", element("thead", element("tr", *head)), element("tbody", *body))


def moment(at_s: int | None) -> str:
    """A time for people, in UTC."""
    return "" if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"
