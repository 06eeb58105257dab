"""OVSDB's JSON-RPC over a Unix socket: transact, monitor, echo. RFC 7047, and monitors of ovsdb-server(7).

Knows the protocol and no schema. Each piece of work has a connection of its own: connecting costs less than a
transaction, and one that was cut off in the middle leaves nothing behind for the next. A `Session` belongs to
one task. Every wait has a deadline, every message a size; answers that break the protocol are refused whole.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jiter
import trio

from opfs.clients.ovsdb_framing import MessageSplitter
from opfs.clients.ovsdb_values import OvsdbProtocolError, Uuid, decode
from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

Operation = dict[str, Any]
"""One operation of a transaction, RFC 7047, section 5.2, in its JSON form."""

MAX_MESSAGE_BYTES = 64 << 20
CONNECT_PATIENCE_S = 1.0
"""For how long a socket that nobody listens on is tried again: a server that is being restarted."""
PROBE_AFTER_S = 10.0
"""A monitor that hears nothing for so long asks whether the server is still there."""

_CHUNK_BYTES = 1 << 18
_NOTHING_SEEN = "00000000-0000-0000-0000-000000000000"
_UPDATES = ("update", "update2", "update3")
_MAX_WAITING_UPDATES = 10_000


class OvsdbRefused(ApplyFailed):
    """The server said no; nothing of the transaction was done. `error` and `details` are its own words."""

    def __init__(self, reason: str, *, hint: str = "", error: str = "", details: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.error = error
        self.details = details


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row of an update. `columns` are JSON forms: of all monitored columns, or with `is_difference` of the
    changed ones, where of a set only the elements that came or went are named; None for a row that is gone.
    """

    table: str
    uuid: Uuid
    columns: Mapping[str, Any] | None
    is_difference: bool = False


class OvsdbClient:
    """A database of a server: where it is and how long it may take."""

    def __init__(self, socket: Path, *, database: str = "Open_vSwitch", timeout_s: float = 10.0) -> None:
        self.socket = socket
        self.database = database
        self.timeout_s = timeout_s

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection, closed at the end. Raises ApplyFailed where nobody answers."""
        stream = await self._connect()
        async with stream:
            yield Session(stream, self)

    async def transact(self, operations: Sequence[Operation]) -> list[dict[str, Any]]:
        """One transaction on a connection of its own; see `Session.transact`."""
        async with self.session() as session:
            return await session.transact(operations)

    async def _connect(self) -> trio.SocketStream:
        deadline = trio.current_time() + min(CONNECT_PATIENCE_S, self.timeout_s)
        while True:
            try:
                return await trio.open_unix_socket(str(self.socket))
            except OSError as error:
                if trio.current_time() >= deadline or not isinstance(error, FileNotFoundError | ConnectionRefusedError):
                    raise ApplyFailed(
                        f"nobody answers at {self.socket}: {error.strerror}", hint="is ovsdb-server running?"
                    ) from error
                await trio.sleep(0.02)


class Session:
    """One connection, used by one task."""

    def __init__(self, stream: trio.SocketStream, client: OvsdbClient) -> None:
        self._stream = stream
        self._client = client
        self._splitter = MessageSplitter(MAX_MESSAGE_BYTES)
        self._messages: deque[bytes] = deque()
        self._updates: deque[list[RowChange]] = deque()
        self._last_id = 0

    async def call(self, method: str, *params: Any) -> Any:
        """The result of one request. Raises OvsdbRefused, ApplyTimeout, OvsdbProtocolError or ApplyFailed."""
        limit_s = self._client.timeout_s
        try:
            with trio.fail_after(limit_s):
                return await self._call(method, params)
        except trio.TooSlowError:
            unknown = "; whether it was done is not known" if method == "transact" else ""
            raise ApplyTimeout(
                f"ovsdb-server at {self._client.socket} has not answered {method!r} within {limit_s:g} s{unknown}"
            ) from None

    async def transact(self, operations: Sequence[Operation]) -> list[dict[str, Any]]:
        """Do all of `operations` or none; returns the result of each, in their order."""
        answer = await self.call("transact", self._client.database, *operations)
        if not isinstance(answer, list) or not all(result is None or isinstance(result, dict) for result in answer):
            raise OvsdbProtocolError("ovsdb-server answered a transaction with something else than results")
        for index, result in enumerate(answer):
            if result is not None and result.get("error") is not None:
                raise _refusal(operations, index, result)
        if len(answer) != len(operations) or None in answer:
            raise OvsdbProtocolError(f"ovsdb-server gave {len(answer)} results for {len(operations)} operations")
        return answer

    async def rows(self, operations: Sequence[Operation]) -> list[list[dict[str, Any]]]:
        """The rows of each of several `select`s, in one transaction."""
        found = []
        for result in await self.transact(operations):
            rows = result.get("rows")
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise OvsdbProtocolError("ovsdb-server answered a select without rows")
            found.append(rows)
        return found

    async def monitor(self, columns: Mapping[str, Sequence[str]]) -> list[RowChange]:
        """Ask to be told of changes in these columns of these tables; returns what is there now.

        Uses the newest way that the server knows: monitor_cond_since, monitor_cond, monitor.
        """
        conditional = {table: [{"columns": list(names)}] for table, names in columns.items()}
        plain = {table: {"columns": list(names)} for table, names in columns.items()}
        database = self._client.database
        try:
            answer = await self.call("monitor_cond_since", database, "opfs", conditional, _NOTHING_SEEN)
            if not isinstance(answer, list) or len(answer) != 3:
                raise OvsdbProtocolError("ovsdb-server answered monitor_cond_since with something else")
            return _read_update("update3", answer[2])
        except OvsdbRefused as refused:
            if refused.error != "unknown method":
                raise
        try:
            return _read_update("update2", await self.call("monitor_cond", database, "opfs", conditional))
        except OvsdbRefused as refused:
            if refused.error != "unknown method":
                raise
        return _read_update("update", await self.call("monitor", database, "opfs", plain))

    async def next_update(self) -> list[RowChange]:
        """Wait for the next change of what is monitored, for ever.

        A server that is silent for long is probed; raises ApplyFailed where it does not answer or goes away.
        """
        while not self._updates:
            message = None
            with trio.move_on_after(PROBE_AFTER_S):
                message = await self._receive()
            if message is None:
                await self.call("echo")
            elif not await self._take(message):
                raise OvsdbProtocolError("ovsdb-server answered a request that was not made")
        return self._updates.popleft()

    async def _call(self, method: str, params: Sequence[Any]) -> Any:
        self._last_id += 1
        await self._send({"method": method, "params": list(params), "id": self._last_id})
        while True:
            message = await self._receive()
            if await self._take(message):
                continue
            if message.get("id") != self._last_id or isinstance(message.get("id"), bool):
                raise OvsdbProtocolError("ovsdb-server answered a request that was not made")
            error = message.get("error")
            if error is not None:
                raise OvsdbRefused(f"ovsdb-server refused {method!r}: {_words(error)}", error=_error_name(error))
            if "result" not in message:
                raise OvsdbProtocolError("ovsdb-server answered with neither a result nor an error")
            return message["result"]

    async def _take(self, message: Mapping[str, Any]) -> bool:
        """Handle what the server says unasked; False for an answer."""
        method = message.get("method")
        if method is None:
            return False
        params = message.get("params")
        if not isinstance(params, list):
            raise OvsdbProtocolError("ovsdb-server sent a request without parameters")
        if method == "echo":
            await self._send({"result": params, "error": None, "id": message.get("id")})
        elif method in _UPDATES:
            if len(self._updates) >= _MAX_WAITING_UPDATES:
                raise OvsdbProtocolError("ovsdb-server sends changes and no answer")
            self._updates.append(_read_update(method, params[-1] if params else None))
        return True

    async def _send(self, message: Mapping[str, Any]) -> None:
        try:
            await self._stream.send_all(json.dumps(message, separators=(",", ":"), allow_nan=False).encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._gone() from error

    async def _receive(self) -> dict[str, Any]:
        while not self._messages:
            try:
                chunk = await self._stream.receive_some(_CHUNK_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._gone() from error
            if not chunk:
                raise self._gone()
            self._messages.extend(self._splitter.feed(bytes(chunk)))
        try:
            message = jiter.from_json(self._messages.popleft(), allow_inf_nan=False, catch_duplicate_keys=True)
        except ValueError as error:
            raise OvsdbProtocolError(f"ovsdb-server sent what is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise OvsdbProtocolError("ovsdb-server sent what is no message")
        return message

    def _gone(self) -> ApplyFailed:
        return ApplyFailed(f"ovsdb-server at {self._client.socket} closed the connection")


def _refusal(operations: Sequence[Operation], index: int, result: Mapping[str, Any]) -> OvsdbRefused:
    error, details = _words(result["error"]), _words(result.get("details", ""))
    what = "the transaction"
    if index < len(operations):
        operation = operations[index]
        what = " ".join(str(operation[key]) for key in ("op", "table") if key in operation)
    reason = f"ovsdb-server refused {what}: {error}{f': {details}' if details else ''}"
    return OvsdbRefused(reason, error=error, details=details)


def _words(said: Any) -> str:
    text = said if isinstance(said, str) else json.dumps(said)
    return " ".join(text.split())[:500]


def _error_name(error: Any) -> str:
    """The name of an error of JSON-RPC, which a server may send as a string or as an object with `error`."""
    return _words(error.get("error", "")) if isinstance(error, dict) else _words(error)


def _read_update(method: str, tables: Any) -> list[RowChange]:
    """The rows of an update of any of the three forms; raises OvsdbProtocolError."""
    changes = []
    for table, rows in _object(tables).items():
        for uuid, change in _object(rows).items():
            row = decode(["uuid", uuid])
            assert isinstance(row, Uuid)
            changes.append(_read_row(method, table, row, _object(change)))
    return changes


def _read_row(method: str, table: str, uuid: Uuid, change: Mapping[str, Any]) -> RowChange:
    if method == "update":
        return RowChange(table, uuid, _object(change["new"]) if "new" in change else None)
    if "delete" in change:
        return RowChange(table, uuid, None)
    for kind in ("initial", "insert", "modify"):
        if kind in change:
            return RowChange(table, uuid, _object(change[kind]), is_difference=kind == "modify")
    raise OvsdbProtocolError(f"ovsdb-server sent a change of a row that says {sorted(change)[:3]}")


def _object(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise OvsdbProtocolError("ovsdb-server sent an update of another shape than RFC 7047 gives it")
    return raw
