"""`/docs`: the API's description for people, one page without a script or a foreign host.

Made from the same document as `/openapi.json`, so the two can't differ.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PATH = "/docs"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
# A document that holds itself would never end; deeper parts are named, not shown.
DEPTH_MAX: Final = 4
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6578; --line: #dde2ea;
  --paper: #ffffff; --side: #f6f7f9; --accent: #1f6feb; --code: #f1f3f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --soft: #9aa4b5; --line: #2b3340;
  --paper: #12161d; --side: #171c24; --accent: #6aa7ff; --code: #1d232d; } }
* { box-sizing: border-box; }
body { margin: 0; display: grid; grid-template-columns: 17rem minmax(0, 1fr); color: var(--ink);
  background: var(--paper); font: 15px/1.55 system-ui, sans-serif; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.5rem 1rem;
  background: var(--side); border-right: 1px solid var(--line); }
nav h2 { margin: 1.2rem 0 .3rem; font-size: .8rem; color: var(--soft); font-weight: 600; }
nav a { display: block; padding: .12rem .4rem; border-radius: 4px; color: inherit;
  text-decoration: none; font-size: .86rem; }
nav a:hover { background: var(--code); }
main { max-width: 60rem; padding: 2rem 2.5rem 6rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0; }
section { padding: 1.4rem 0; border-bottom: 1px solid var(--line); }
section > h3 { margin: 0; font-size: 1rem; }
h4 { margin: 1rem 0 .3rem; font-size: .8rem; color: var(--soft); font-weight: 600; }
p { margin: .4rem 0; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
code { background: var(--code); padding: .08rem .3rem; border-radius: 4px; }
.method { display: inline-block; min-width: 4.2em; font-weight: 700; color: var(--accent); }
table { width: 100%; border-collapse: collapse; font-size: .88rem; }
td { padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top; }
td:first-child { width: 15rem; word-break: break-word; }
td:nth-child(2) { width: 11rem; color: var(--soft); }
.soft { color: var(--soft); }
@media (max-width: 50rem) { body { display: block; } nav { position: static; height: auto; }
  main { padding: 1rem; } td:first-child, td:nth-child(2) { width: auto; } }
"""


def add_docs_page(app: web.Application, document: Callable[[], Mapping[str, Any]]) -> None:
    """Registers it; `document` is the API's description in OpenAPI."""
    made: list[bytes] = []

    async def docs(_request: web.Request) -> web.Response:
        if not made:
            made.append(render(document()).encode())
        return web.Response(
            body=made[0], content_type="text/html", charset="utf-8", headers=_HEADERS
        )

    app.router.add_get(PATH, docs)


def render(document: Mapping[str, Any]) -> str:
    """The whole page."""
    info = document["info"]
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    page = _Page(document["components"]["schemas"])
    nav = "".join(
        f"<h2>{escape(tag)}</h2>"
        + "".join(
            f'<a href="#{escape(operation["operationId"])}">{escape(operation["summary"])}</a>'
            for _, _, operation in operations
        )
        for tag, operations in by_tag.items()
    )
    body = "".join(
        f"<h2>{escape(tag)}</h2>" + "".join(page.section(*one) for one in operations)
        for tag, operations in by_tag.items()
    )
    title = f"{escape(info['title'])} API"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f'<nav aria-label="Operations"><strong>{title}</strong>{nav}</nav>'
        f"<main><h1>{title} <span class=soft>{escape(info['version'])}</span></h1>"
        f"<p>{escape(info['description'])} For programs: "
        '<a href="/openapi.json">openapi.json</a>.</p>'
        "<p>Send <code>Authorization: Bearer …</code> with an API token, an access token of a "
        'login, or an API key. Credits are texts such as <code>"12.5"</code>, times are UTC in '
        "RFC 3339. Mistakes are answered as <code>application/problem+json</code> and name every "
        f"wrong field.</p>{body}</main></body></html>"
    )


class _Page:
    """Renders operations with the documents they refer to."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas

    def section(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        """One operation."""
        parts = [
            f'<section id="{escape(operation["operationId"])}">',
            f"<h3><span class=method>{method}</span> <code>{escape(path)}</code></h3>",
            f"<p><strong>{escape(operation['summary'])}.</strong></p>",
        ]
        parts += [f"<p>{_prose(text)}</p>" for text in operation["description"].split("\n\n")]
        if parameters := operation.get("parameters"):
            rows = "".join(
                _row(one["name"], self._type(one["schema"]), one, required=one.get("required"))
                for one in parameters
            )
            parts.append(f"<h4>Parameters</h4><table>{rows}</table>")
        if body := operation.get("requestBody"):
            parts.append("<h4>Body</h4>" + self._table(_schema(body["content"]), asked=True))
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                parts.append(f"<h4>Answer {status}</h4>")
                content = answer.get("content")
                parts.append(self._table(_schema(content)) if content else "<p>Nothing.</p>")
        return "".join(parts) + "</section>"

    def _table(self, schema: Mapping[str, Any], *, asked: bool = False) -> str:
        """The fields of a document; what must be there is said of one that is asked for."""
        return f"<table>{''.join(self._rows(schema, '', 0, asked=asked))}</table>"

    def _rows(
        self, schema: Mapping[str, Any], prefix: str, depth: int, *, asked: bool
    ) -> Iterator[str]:
        whole = self._resolved(schema)
        required = whole.get("required", ()) if asked else ()
        for name, one in whole.get("properties", {}).items():
            yield _row(prefix + name, self._type(one), one, required=name in required)
            inner = self._resolved(one.get("items", one))
            if "properties" in inner and depth < DEPTH_MAX:
                mark = "[]." if "items" in one else "."
                yield from self._rows(inner, f"{prefix}{name}{mark}", depth + 1, asked=asked)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a reference, or the one kind besides null, stands for."""
        options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        if len(options) == 1:
            return self._resolved(options[0])
        if "$ref" in schema:
            return self._resolved(self._schemas[schema["$ref"].rpartition("/")[2]])
        return schema

    def _type(self, schema: Mapping[str, Any]) -> str:
        if "anyOf" in schema:
            return " or ".join(dict.fromkeys(self._type(one) for one in schema["anyOf"]))
        if "$ref" in schema:
            return self._type(self._schemas[schema["$ref"].rpartition("/")[2]])
        if "enum" in schema:
            return " | ".join(f'"{value}"' for value in schema["enum"])
        if "const" in schema:
            return f'"{schema["const"]}"'
        if schema.get("type") == "array":
            return f"list of {self._type(schema.get('items', {}))}"
        kind = str(schema.get("format") or schema.get("type", "any"))
        return {"object": "document", "string": "text", "integer": "number"}.get(kind, kind)


def _prose(text: str) -> str:
    """A sentence, in which `names` stand out."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _schema(content: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(iter(content.values()))["schema"]
    return found


def _row(name: str, kind: str, schema: Mapping[str, Any], *, required: bool | None) -> str:
    told = _prose(schema.get("description", ""))
    default = schema.get("default", schema.get("schema", {}).get("default"))
    notes = ["required"] if required else []
    if default not in (None, [], {}):
        notes.append(f"default {escape(str(default))}")
    note = f"<span class=soft>{', '.join(notes)}</span> " if notes else ""
    return f"<tr><td><code>{escape(name)}</code><td>{escape(kind)}<td>{note}{told}"
