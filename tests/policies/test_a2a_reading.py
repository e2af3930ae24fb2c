"""What A2A requests ask for, and what answers say of tasks, in both protocols and both versions."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import tasks
from policies.catalog import Ending
from policies.meters import RequestFacts
from policies.meters.values import WALKED_MAX
from policies.tasks import (
    ANSWER_READ_MAX_BYTES,
    Asked,
    TaskAnswer,
    Told,
)

RPC, SEND, STREAM = "/a2a/rpc", "/a2a/message:send", "/a2a/v1/message:stream"
BEGINS = Asked(sends=True)
MESSAGE = {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
OPEN, DONE = "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"


def asked(method: str, path: str, body: bytes | None) -> Asked | None:
    request = RequestFacts(orjson.loads, method, path, path, "", body, len(body or b""))
    return tasks.asked(method, path, body, request.document())


def rpc(method: str, params: object = None) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def told(content_type: str, *chunks: bytes, encoding: str = "") -> Told:
    answer = TaskAnswer(json.loads, content_type, encoding)
    for chunk in chunks:
        answer.feed(chunk)
    return answer.told()


def of_rpc(result: object) -> Told:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    return told("application/json", body)


def task(state: str, name: str = "T") -> dict[str, Any]:
    return {"id": name, "contextId": "C", "status": {"state": state}, "history": [MESSAGE]}


# Requests.


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage", "message/send"])
def test_a_message_begins_something_unless_it_names_a_task(method: str) -> None:
    assert asked("POST", RPC, rpc(method, {"message": MESSAGE})) == BEGINS
    named = rpc(method, {"message": {**MESSAGE, "taskId": "T"}})
    assert asked("POST", RPC, named) == Asked(sends=True, task="T")


def test_a_message_over_http_names_its_task_in_its_body() -> None:
    assert asked("POST", SEND, json.dumps({"message": MESSAGE}).encode()) == BEGINS
    for name, field in (("message", "taskId"), ("message", "task_id"), ("request", "taskId")):
        body = json.dumps({name: {**MESSAGE, field: "T"}}).encode()
        assert asked("POST", STREAM, body) == Asked(sends=True, task="T")


@pytest.mark.parametrize(
    "method", ["GetTask", "CancelTask", "SubscribeToTask", "tasks/get", "tasks/resubscribe"]
)
def test_what_asks_after_a_task_is_free(method: str) -> None:
    assert asked("POST", RPC, rpc(method, {"id": "T"})) == Asked(sends=False, task="T")


@pytest.mark.parametrize(
    ("method", "path", "task"),
    [
        ("GET", "/a2a/tasks/T", "T"),
        ("GET", "/a2a/v1/tasks/T:subscribe", "T"),
        ("POST", "/a2a/tasks/T:subscribe", "T"),
        ("POST", "/a2a/tasks/T:cancel", "T"),
        ("POST", "/a2a/tasks/T/pushNotificationConfigs", "T"),
        ("DELETE", "/a2a/tasks/T/pushNotificationConfigs/1", "T"),
        ("GET", "/a2a/tasks", ""),
        ("GET", "/a2a/.well-known/agent-card.json", ""),
    ],
)
def test_paths_that_ask_after_a_task_are_free(method: str, path: str, task: str) -> None:
    assert asked(method, path, b"") == Asked(sends=False, task=task)


@pytest.mark.parametrize("method", ["ListTasks", "GetExtendedAgentCard", "tasks/list"])
def test_what_names_no_task_is_free_too(method: str) -> None:
    assert asked("POST", RPC, rpc(method, {})) == Asked(sends=False)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RPC, rpc("RunAnything", {"id": "T"})),
        (RPC, rpc("gettask", {"id": "T"})),
        (RPC, b'{"jsonrpc":"2.0"}'),
        (RPC, b"no json"),
        (RPC, b"\xff"),
        (RPC, b"7"),
        (RPC, b"[" * 100_000),
        (RPC, b""),
        ("/a2a/anything", b"{}"),
        ("/a2a/tasks/T:restart", b"{}"),
        ("/a2a/tasks/T", b"{}"),
        (SEND, rpc("GetTask", {"id": "T"})),
        (SEND, b""),
        (SEND, json.dumps({"message": {"taskId": "T"}, "request": {}}).encode()),
        (SEND, json.dumps({"message": {"taskId": "T", "task_id": "S"}}).encode()),
        (SEND, json.dumps({"message": {"taskId": 7}}).encode()),
        (RPC, rpc("SendMessage", ["T"])),
    ],
)
def test_what_is_not_known_to_be_free_costs_like_a_message(path: str, body: bytes) -> None:
    assert asked("POST", path, body) == BEGINS


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","method":"GetTask","params":{"id":"T"}}',
        b'{"method":"SendMessage","m\\u0065thod":"GetTask","jsonrpc":"2.0","params":{"id":"T"}}',
        b'{"jsonrpc":"2","method":"SendMessage","params":{"message":1,"message":{"taskId":"T"}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"GetTask","Method":"SendMessage","params":{"id":"T"}}',
        b'{"method":"GetTask","metho\\u0064\\u0000":"SendMessage","jsonrpc":"2","params":{"id":"T"}}',
        b'{"jsonrpc":"2","method":"SendMessage","params":{"message":{"taskId":"T"},"MESSAGE":{}}}',
        b'{"jsonrpc":"2","method":"SendMessage","params":{"message":{"taskId":"T","TaskId":""}}}',
        b'{"jsonrpc":"2","method":"GetTask","Params":{},"params":{"id":"T"},"x":NaN}',
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_not_free(body: bytes) -> None:
    assert asked("POST", RPC, body) == BEGINS


def test_a_name_may_stand_again_where_it_means_something_else() -> None:
    data = {"method": "GET", "message": "é", "taskId": "another"}
    message = {**MESSAGE, "taskId": "T", "parts": [{"data": data}]}
    body = rpc("SendMessage", {"message": message})
    assert asked("POST", RPC, body) == Asked(sends=True, task="T")
    filled = {**message, "parts": [{"data": data, "text": "x" * 1_000_000}]}
    named = rpc("SendMessage", {"message": filled})
    assert asked("POST", RPC, named) == Asked(sends=True, task="T")
    filled = {**message, "parts": [{"data": data, "list": [[]] * WALKED_MAX.names}]}
    assert asked("POST", RPC, rpc("SendMessage", {"message": filled})) == BEGINS


def test_a_body_too_long_to_be_read_and_an_unknown_method_cost() -> None:
    assert asked("POST", RPC, None) == BEGINS
    assert asked("PUT", "/a2a/tasks/T", b"") == BEGINS


def test_there_are_no_batches() -> None:
    assert asked("POST", RPC, b"[" + rpc("GetTask", {"id": "T"}) + b"]") is None


# Answers.


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        ("TASK_STATE_SUBMITTED", None),
        ("TASK_STATE_WORKING", None),
        ("TASK_STATE_INPUT_REQUIRED", None),
        ("TASK_STATE_AUTH_REQUIRED", None),
        ("TASK_STATE_COMPLETED", Ending.COMPLETED),
        ("TASK_STATE_FAILED", Ending.UPSTREAM_ERROR),
        ("TASK_STATE_REJECTED", Ending.UPSTREAM_ERROR),
        ("TASK_STATE_CANCELED", Ending.CLIENT_DISCONNECT),
        ("TASK_STATE_CANCELLED", Ending.CLIENT_DISCONNECT),
        ("input-required", None),
        ("unknown", None),
        ("completed", Ending.COMPLETED),
        ("failed", Ending.UPSTREAM_ERROR),
        ("rejected", Ending.UPSTREAM_ERROR),
        ("canceled", Ending.CLIENT_DISCONNECT),
    ],
)
def test_a_state_says_how_a_task_has_ended(state: str, ending: Ending | None) -> None:
    expected = Told((("T", ending),))
    assert of_rpc({"task": task(state)}) == expected
    assert of_rpc({**task(state), "kind": "task"}) == expected
    assert told("application/a2a+json; charset=utf-8", json.dumps(task(state)).encode()) == expected


def test_a_task_without_a_state_is_open() -> None:
    assert of_rpc({"task": {"id": "T", "status": {}}}) == Told((("T", None),))


@pytest.mark.parametrize(
    "result",
    [
        {"message": MESSAGE},
        {**MESSAGE, "kind": "message", "taskId": "T"},
        {"artifactUpdate": {"taskId": "T", "artifact": {}}},
        None,
        [],
        "completed",
        {"task": [], "status": {"state": DONE}},
        {"tasks": ["T", None, {"status": {"state": DONE}}]},
    ],
)
def test_an_answer_without_a_task_tells_of_none(result: object) -> None:
    assert of_rpc(result) == Told()


def test_a_list_tells_of_each_task() -> None:
    listed = {"tasks": [task(OPEN, "1"), task(DONE, "2")], "totalSize": 2}
    assert of_rpc(listed) == Told((("1", None), ("2", Ending.COMPLETED)))


@pytest.mark.parametrize(
    ("code", "ending"),
    [(-32603, Ending.UPSTREAM_ERROR), (-32001, Ending.CLIENT_ERROR), (None, Ending.CLIENT_ERROR)],
)
def test_an_error_is_an_ending_although_the_status_is_200(code: object, ending: Ending) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": code}}).encode()
    assert told("application/json", body) == Told((), ending)


def test_what_is_not_read_tells_nothing() -> None:
    body = json.dumps({"task": task(DONE)}).encode()
    assert told("text/plain", body) == Told()
    assert told("application/json", body, encoding="gzip") == Told()
    assert told("application/json", body[:-1]) == Told()
    assert told("application/json", b" " * ANSWER_READ_MAX_BYTES, body) == Told()


def events(*results: object, end: str = "\r\n") -> bytes:
    documents = [{"jsonrpc": "2.0", "id": 1, "result": result} for result in results]
    return "".join(f"data: {json.dumps(one)}{end}{end}" for one in documents).encode()


STREAMED = events(
    {"task": task("TASK_STATE_SUBMITTED")},
    {"statusUpdate": {"taskId": "T", "contextId": "C", "status": {"state": OPEN}}},
    {"artifactUpdate": {"taskId": "T", "artifact": {"parts": [{"text": "é"}]}}},
    {"statusUpdate": {"taskId": "T", "contextId": "C", "status": {"state": DONE}}},
)


@given(st.lists(st.integers(0, len(STREAMED)), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_it_does_not_matter_how_a_stream_of_tasks_is_cut(cuts: list[int], end: str) -> None:
    stream = STREAMED.replace(b"\r\n", end.encode())
    places = [0, *sorted(cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(places)]
    assert told("text/event-stream", *chunks) == Told((("T", Ending.COMPLETED),))


def test_a_stream_tells_while_it_passes() -> None:
    answer = TaskAnswer(json.loads, "text/event-stream; charset=utf-8")
    first, *_ = STREAMED.split(b"\r\n\r\n")
    answer.feed(first)
    assert answer.told(ended=False) == Told()
    answer.feed(b"\r\n")
    assert answer.told(ended=False) == Told((("T", None),))


def test_a_stream_of_the_older_version_tells_the_same() -> None:
    update = {"kind": "status-update", "taskId": "T", "final": True}
    stream = events(
        {**task("submitted"), "kind": "task"}, {**update, "status": {"state": "failed"}}
    )
    assert told("text/event-stream", stream) == Told((("T", Ending.UPSTREAM_ERROR),))


def test_what_is_over_stays_over() -> None:
    assert told("text/event-stream", STREAMED, events({"task": task(OPEN)})) == Told(
        (("T", Ending.COMPLETED),)
    )


def test_an_event_that_the_stream_did_not_end_still_counts() -> None:
    assert told("text/event-stream", STREAMED.rstrip()) == Told((("T", Ending.COMPLETED),))


def test_an_error_in_mid_stream_leaves_the_task_open() -> None:
    error = b'data: {"jsonrpc": "2.0", "error": {"code": -32603}}\n\n'
    stream = events({"task": task(OPEN)}) + error
    assert told("text/event-stream", stream) == Told((("T", None),), Ending.UPSTREAM_ERROR)


def test_an_event_too_long_is_not_read_and_the_next_one_is() -> None:
    long = b'data: {"status": "' + b"x" * ANSWER_READ_MAX_BYTES
    assert told("text/event-stream", long, b'x"}\n\n', STREAMED) == Told((("T", Ending.COMPLETED),))
