"""The API's description in OpenAPI 3.1, made from the endpoints and their models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from gateway.control.api.exports import CSV, NDJSON
from gateway.control.api.problems import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import BaseModel

    from gateway.control.api.endpoint import Endpoint

JSON = "application/json"
_REFERENCE = "#/components/schemas/{model}"
_ID: Final = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}
_CALL_ID: Final = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[^/\x00]+$"}
_PROBLEM: Final = {
    "type": "object",
    "description": "What is wrong, and what to do (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "For programs."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Every wrong field.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_PROBLEMS: Final = {
    400: "It can't be understood.",
    401: "No token or key, or no valid one.",
    403: "The role may not do this.",
    404: "There is none here.",
    406: "Not in that format.",
    409: "Not as things are.",
    412: "It was changed since it was read.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    422: "Fields are wrong: all are named.",
    429: "Too often; see Retry-After.",
    503: "Not at the moment; see Retry-After. `not_effective_yet`: the change itself is saved.",
}


def describe(endpoints: Sequence[Endpoint], *, version: str) -> dict[str, Any]:
    """The whole document."""
    wanted: list[tuple[type[BaseModel], Any]] = []
    for endpoint in endpoints:
        if endpoint.body is not None:
            wanted.append((endpoint.body, "validation"))
        if endpoint.answers is not None:
            wanted.append((endpoint.answers, "serialization"))
    references, schemas = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(
            endpoint, references
        )
    components = dict(schemas.get("$defs", {}))
    components["Problem"] = _PROBLEM
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollkeeper",
            "version": version,
            "description": "The control plane: what platform owners, accounts and operators do.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, an access token of a login, or an API key.",
                }
            },
        },
    }


def _operation(endpoint: Endpoint, references: dict[Any, Any]) -> dict[str, Any]:
    roles = ", ".join(sorted(role.value for role in endpoint.roles)) or "everybody"
    described = f"{endpoint.description}\n\n" if endpoint.description else ""
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "description": f"{described}For: {roles}.",
        "tags": [endpoint.tag or endpoint.path.split("/")[2]],
        "responses": _responses(endpoint, references),
    }
    parameters = [_path_parameter(name) for name in endpoint.path_names()]
    parameters += _query_parameters(endpoint)
    if endpoint.creates:
        parameters.append(
            _header("Idempotency-Key", "A repeated request with it is answered, not done again.")
        )
    if endpoint.reads is not None:
        parameters.append(_header("If-Match", "The ETag that is to be changed, and no other."))
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {JSON: {"schema": references[endpoint.body, "validation"]}}
        operation["requestBody"] = {"required": endpoint.needs_body(), "content": content}
    if not endpoint.roles:
        operation["security"] = []
    return operation | endpoint.extra


def _responses(endpoint: Endpoint, references: dict[Any, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    status = 204 if endpoint.answers is None else endpoint.status
    if endpoint.answers is not None:
        done["content"] = {JSON: {"schema": references[endpoint.answers, "serialization"]}}
        if endpoint.exports:
            done["content"] |= {kind: {"schema": {"type": "string"}} for kind in (CSV, NDJSON)}
    problem = {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}
    return {str(status): done} | {
        str(number): {"description": text, "content": problem} for number, text in _PROBLEMS.items()
    }


def _path_parameter(name: str) -> dict[str, Any]:
    is_id = name.endswith("_id") and name != "call_id"
    schema = _CALL_ID if name == "call_id" else _ID if is_id else _NAME
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    if endpoint.query is None:
        return []
    schema = endpoint.query.model_json_schema(ref_template=_REFERENCE)
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": one.get("description", ""),
            "schema": _plain(one),
        }
        for name, one in schema["properties"].items()
    ]


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema: what is not there is not null, it is not there."""
    kept = {key: value for key, value in schema.items() if key not in ("title", "description")}
    options = [one for one in kept.get("anyOf", []) if one != {"type": "null"}]
    if len(options) == 1:
        del kept["anyOf"]
        kept = {**options[0], **kept}
    if kept.get("default", 0) is None:
        del kept["default"]
    return kept


def _header(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"}
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _operation_id(endpoint: Endpoint) -> str:
    words = re.sub(r"[{}]", "", endpoint.path.removeprefix("/v1/")).replace("/", "_")
    return f"{endpoint.method.lower()}_{words.replace('-', '_')}"
