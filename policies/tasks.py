"""What a call of the A2A protocol asks for, and what its answer says of tasks; bytes in.

Read are JSON-RPC and HTTP+JSON of protocol 1.0, and both of 0.3. A *task* is work that outlives the
call that began it. Its state is *open* (submitted, working, waiting for its client) or *over*, and
then the state says how a call that pays for it has ended:

    completed  COMPLETED      failed, rejected  UPSTREAM_ERROR      canceled  CLIENT_DISCONNECT

An answer with a message instead of a task has none; one with an error began nothing.

What is not known to be free is taken for a message that begins something: a method that nobody
has heard of must not be a way to make an agent work for nothing. So is a request that two readers
could understand differently, because it names a member twice, or in two cases of letters.

Source: https://a2a-protocol.org/latest/specification/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from policies.catalog import Ending
from policies.meters.members import is_repeated

if TYPE_CHECKING:
    from collections.abc import Callable

# An answer, or an event of one, that is longer passes untouched but unread.
ANSWER_READ_MAX_BYTES = 8 * 1024 * 1024
# Of an answer that lists tasks; a page has at most so many.
TASKS_MAX = 100
_FREE_METHODS = frozenset(
    {
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
        "tasks/get",
        "tasks/list",
        "tasks/cancel",
        "tasks/resubscribe",
        "tasks/pushNotificationConfig/set",
        "tasks/pushNotificationConfig/get",
        "tasks/pushNotificationConfig/list",
        "tasks/pushNotificationConfig/delete",
        "agent/getAuthenticatedExtendedCard",
        "agent/getExtendedAgentCard",
    }
)
_FREE_HTTP_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_SENDS = re.compile(r"/message:(?:send|stream)$")
_TASK_PATH = re.compile(
    r"/tasks/([^/:]+)(:(?:cancel|subscribe)|/pushNotificationConfigs(?:/.*)?)?$"
)
# Where it stands what a request costs, by JSON-RPC and without.
_RPC_WAYS = (
    ("jsonrpc",),
    ("method",),
    ("params", "message", "taskId"),
    ("params", "message", "task_id"),
)
_HTTP_WAYS = (
    ("message", "taskId"),
    ("message", "task_id"),
    ("request", "taskId"),
    ("request", "task_id"),
)
_ENDINGS = {
    "completed": Ending.COMPLETED,
    "failed": Ending.UPSTREAM_ERROR,
    "rejected": Ending.UPSTREAM_ERROR,
    "canceled": Ending.CLIENT_DISCONNECT,
    "cancelled": Ending.CLIENT_DISCONNECT,
}
# JSON-RPC's own code for a mistake of the agent's; others say what is wrong with the request.
_INTERNAL_ERROR = -32603
_INVALID_AGENT_RESPONSE = -32006


class Asked(NamedTuple):
    """What a request asks for: whether it makes the agent work, and the task it names, or ""."""

    sends: bool
    task: str = ""


class Told(NamedTuple):
    """What an answer has told until now.

    `tasks` are (id, ending or None while it is open), in the order of their first mention, each as
    of its last. `error` is the ending that an error in an answer of status 200 means, or None.
    """

    tasks: tuple[tuple[str, Ending | None], ...] = ()
    error: Ending | None = None


NOTHING_TOLD = Told()
_BEGINS = Asked(sends=True)


def asked(method: str, path: str, body: bytes | None, document: object) -> Asked | None:
    """What a request asks for; None for a batch, which A2A does not have.

    `path` is canonical; `body` is None when it is too long to be read; `document` is what the JSON
    in it was decoded to, None where that could not be.
    """
    if method in _FREE_HTTP_METHODS:
        return Asked(sends=False, task=_task_of_path(path))
    if method != "POST" or body is None:
        return _BEGINS
    if not body:
        return _asked_by_path(path, {})
    if isinstance(document, list):
        return None
    if not isinstance(document, dict) or _is_ambiguous(body, document):
        return _BEGINS
    return _asked_by_document(path, document)


def _asked_by_document(path: str, document: dict[str, object]) -> Asked:
    if "method" not in document and "jsonrpc" not in document:
        return _asked_by_path(path, document)
    if _SENDS.search(path):
        return _BEGINS  # the two protocols at once
    return _asked_by_rpc(document)


def _asked_by_rpc(document: dict[str, object]) -> Asked:
    method, params = document.get("method"), document.get("params")
    fields = params if isinstance(params, dict) else {}
    if method in _FREE_METHODS:
        return Asked(sends=False, task=_text(fields, "id", "taskId", "task_id"))
    if method in {"SendMessage", "SendStreamingMessage", "message/send", "message/stream"}:
        return Asked(sends=True, task=_task_of_message(fields.get("message")))
    return _BEGINS


def _asked_by_path(path: str, document: dict[str, object]) -> Asked:
    if _SENDS.search(path):
        names = [name for name in ("message", "request") if name in document]
        return Asked(
            sends=True, task=_task_of_message(document[names[0]]) if len(names) == 1 else ""
        )
    match = _TASK_PATH.search(path)
    # Of a task itself there is nothing that can be posted.
    return Asked(sends=False, task=match[1]) if match and match[2] else _BEGINS


def _task_of_path(path: str) -> str:
    match = _TASK_PATH.search(path)
    return match[1] if match else ""


def _task_of_message(message: object) -> str:
    if not isinstance(message, dict):
        return ""
    if "taskId" in message and "task_id" in message:
        return ""  # an agent may take either
    return _text(message, "taskId", "task_id")


def _text(fields: dict[str, object], *names: str) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _is_ambiguous(body: bytes, document: dict[str, object]) -> bool:
    """Whether another reader may find another method in a request, or another task."""
    by_rpc = "method" in document or "jsonrpc" in document
    return is_repeated(body, *(_RPC_WAYS if by_rpc else _HTTP_WAYS))


class TaskAnswer:
    """Reads one answer, JSON or an event stream of it, as it passes; never changes or delays it."""

    __slots__ = ("_error", "_loads", "_pending", "_tasks", "_too_long", "read", "stream")

    def __init__(
        self, loads: Callable[[bytes], object], content_type: str, content_encoding: str = ""
    ) -> None:
        """`loads` decodes JSON and raises ValueError; the content type may have parameters.

        An encoded answer is not read: agents are asked for plain ones.
        """
        media_type = content_type.partition(";")[0].strip().lower()
        self._loads = loads
        self.stream = media_type == "text/event-stream"
        # Whether this kind of answer can say anything.
        plain = content_encoding.lower() in {"", "identity"}
        self.read = plain and (self.stream or media_type.endswith("json"))
        self._pending = bytearray()  # of the event that has not ended yet, or of the whole answer
        self._too_long = False
        self._tasks: dict[str, Ending | None] = {}
        self._error: Ending | None = None

    def feed(self, chunk: bytes) -> None:
        """Reads the events that end in these bytes and keeps the rest."""
        if not self.read:
            return
        self._pending += chunk
        if self.stream and b"\n" in chunk:
            self._read_lines()
        if len(self._pending) > ANSWER_READ_MAX_BYTES:
            self._too_long = True
            del self._pending[:]

    def told(self, *, ended: bool = True) -> Told:
        """What was told until now; `ended` says that nothing more comes."""
        if ended and self._pending and not self._too_long:
            if self.stream:
                self._read_line(bytes(self._pending))
            else:
                self._read_document(bytes(self._pending))
            del self._pending[:]
        return Told(tuple(self._tasks.items()), self._error)

    def _read_lines(self) -> None:
        """Read each whole line: agents write an event's data in one. A CR at its end is space."""
        end = self._pending.rfind(b"\n") + 1
        lines = bytes(self._pending[:end]).split(b"\n")
        del self._pending[:end]
        if self._too_long:
            self._too_long = False
            del lines[0]
        for line in lines:
            self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        # Parts of a result have no state, and are many.
        if line.startswith(b"data:") and (b'"status"' in line or b'"error"' in line):
            self._read_document(line[len(b"data:") :])

    def _read_document(self, text: bytes) -> None:
        try:
            document = self._loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(document, dict):
            self._read_result(document)

    def _read_result(self, document: dict[str, object]) -> None:
        """A JSON-RPC answer, or what stands for its result in the other protocol."""
        result: object = document
        if "jsonrpc" in document:
            if isinstance(error := document.get("error"), dict):
                self._error = _ending_of_error(error.get("code"))
                return
            result = document.get("result")
        if not isinstance(result, dict):
            return
        for name in ("task", "statusUpdate"):
            if isinstance(inner := result.get(name), dict):
                self._read_task(inner)
                return
        if isinstance(tasks := result.get("tasks"), list):
            for task in tasks[:TASKS_MAX]:
                self._read_task(task)
            return
        self._read_task(result)

    def _read_task(self, task: object) -> None:
        """A task, or an update of its status."""
        if not isinstance(task, dict) or not isinstance(status := task.get("status"), dict):
            return
        name = _text(task, "taskId", "id")
        if not name or (len(self._tasks) >= TASKS_MAX and name not in self._tasks):
            return
        state = status.get("state")
        word = state.lower().removeprefix("task_state_") if isinstance(state, str) else ""
        ending = _ENDINGS.get(word)
        if self._tasks.get(name) is None:  # what is over stays over
            self._tasks[name] = ending


def _ending_of_error(code: object) -> Ending:
    ours = code in {_INTERNAL_ERROR, _INVALID_AGENT_RESPONSE}
    return Ending.UPSTREAM_ERROR if ours else Ending.CLIENT_ERROR
