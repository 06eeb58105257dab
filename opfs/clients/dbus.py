"""A message bus: method calls with a deadline, properties, signals.

Speaks D-Bus (the freedesktop specification, version 0.42) by jeepney on trio and knows no service. One connection
serves any number of tasks at once; it is opened for a piece of work, which costs a few milliseconds, since a
plugin has nowhere to keep one alive. Everything may be cancelled: a call that is no longer awaited is still
carried out by the service.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import trio
from jeepney import DBusAddress, MatchRule, Message, MessageFlag, MessageType, Properties, new_method_call
from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.bus import get_connectable_addresses
from jeepney.bus_messages import message_bus
from jeepney.io.trio import DBusConnection
from jeepney.low_level import HeaderFields

from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"

_CONNECT_TIMEOUT_S = 10.0
_CALL_TIMEOUT_S = 25.0
"""The reference implementation's own default."""
_SIGNALS_KEPT = 10_000
"""Signals waiting to be read. A subscriber that falls behind that far is cut off, not lied to."""


class BusError(ApplyFailed):
    """A service, or the bus, answered with an error; `name` is the D-Bus error name, `words` its text."""

    def __init__(self, name: str, words: str, doing: str) -> None:
        super().__init__(f"{doing}: {words or 'it gave no reason'} ({name})")
        self.name = name
        self.words = words


@dataclass(frozen=True, slots=True)
class Signal:
    """What a service announced; `sender` is its unique bus name."""

    sender: str
    path: str
    interface: str
    member: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """Somebody on the bus: a bus name and the object path and interface that is meant unless another is given."""

    name: str
    path: str
    interface: str


class Bus:
    """A connection; made by `open_bus`."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        self._serials = count(start=1)
        self._awaited: dict[int, trio.MemorySendChannel[Message]] = {}
        self._subscriptions: dict[int, tuple[MatchRule, trio.MemorySendChannel[Signal]]] = {}
        self._subscription_ids = count()
        self._end = ""

    async def call(
        self,
        service: Service,
        method: str,
        signature: str = "",
        *arguments: Any,
        path: str | None = None,
        interface: str | None = None,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> tuple[Any, ...]:
        """Call a method and return what it returns.

        Arguments are as jeepney takes them: a variant is a tuple of signature and value. Raises BusError,
        ApplyTimeout, and ApplyFailed where the connection ends.
        """
        address = DBusAddress(path or service.path, service.name, interface or service.interface)
        message = new_method_call(address, method, signature or None, arguments)
        return await self._call(message, f"{service.name} {method}", timeout_s)

    async def get(self, service: Service, name: str, *, path: str | None = None, interface: str | None = None) -> Any:
        """The value of one property."""
        address = DBusAddress(path or service.path, service.name, interface or service.interface)
        ((_, value),) = await self._call(Properties(address).get(name), f"{service.name} {name}", _CALL_TIMEOUT_S)
        return value

    async def get_all(
        self, service: Service, *, path: str | None = None, interface: str | None = None
    ) -> Mapping[str, Any]:
        """The values of all properties of an interface, by name."""
        address = DBusAddress(path or service.path, service.name, interface or service.interface)
        (found,) = await self._call(Properties(address).get_all(), f"{service.name} properties", _CALL_TIMEOUT_S)
        return {name: value for name, (_, value) in found.items()}

    @asynccontextmanager
    async def signals(
        self,
        service: Service,
        member: str | None = None,
        *,
        path: str | None = None,
        below: str | None = None,
        interface: str | None = None,
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Signal]]:
        """Receive signals of a service while the context lasts: those of `path`, or of every path `below` one.

        They are those of the process that has the service's name now; `ownership` tells when that changes. The
        channel ends when the connection does, or when the reader has fallen 10,000 signals behind.
        """
        conditions = {
            "interface": interface or service.interface,
            "member": member,
            "path_namespace": below,
            "path": None if below else path or service.path,
        }
        async with self._matching(conditions, service.name) as channel:
            yield channel

    @asynccontextmanager
    async def ownership(self, service: Service) -> AsyncIterator[trio.MemoryReceiveChannel[Signal]]:
        """Receive `NameOwnerChanged` of a service: it came, went or was replaced."""
        conditions = {"interface": message_bus.interface, "member": "NameOwnerChanged", "path": message_bus.object_path}
        async with self._matching(conditions, message_bus.bus_name, service.name) as channel:
            yield channel

    async def describe(self, sender: str) -> str:
        """Who a bus name is, as the kernel told the bus: "bus name :1.42, uid 0, pid 4242 (systemctl)"."""
        try:
            (found,) = await self._call(
                new_method_call(message_bus, "GetConnectionCredentials", "s", (sender,)), "the bus", _CALL_TIMEOUT_S
            )
        except BusError:
            return f"bus name {sender}"  # it has left the bus
        known = {key: value for key, (_, value) in found.items()}
        words = [f"bus name {sender}"]
        words += [f"uid {known['UnixUserID']}"] if "UnixUserID" in known else []
        words += [f"pid {known['ProcessID']}"] if "ProcessID" in known else []
        return ", ".join(words)

    @asynccontextmanager
    async def _matching(
        self, conditions: Mapping[str, str | None], sender: str, first_argument: str | None = None
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Signal]]:
        send, receive = trio.open_memory_channel[Signal](_SIGNALS_KEPT)
        id = next(self._subscription_ids)
        asked = MatchRule(type="signal", sender=sender, **conditions)
        local = MatchRule(type="signal", sender=await self._owner(sender), **conditions)
        if first_argument is not None:
            asked.add_arg_condition(0, first_argument)
            local.add_arg_condition(0, first_argument)
        # The bus forwards what was asked for, but anybody may address a signal to us directly: so the sender is
        # checked here too, by the unique name that signals carry.
        self._subscriptions[id] = (local, send)
        try:
            await self._call(message_bus.AddMatch(asked), f"subscribe to {sender}", _CALL_TIMEOUT_S)
            yield receive
        finally:
            del self._subscriptions[id]
            # Nobody may be left to receive the answer, so none is asked for.
            farewell = message_bus.RemoveMatch(asked)
            farewell.header.flags |= MessageFlag.no_reply_expected
            with (
                trio.CancelScope(shield=True),
                trio.move_on_after(1),
                suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            ):
                await self._connection.send(farewell, serial=next(self._serials))

    async def _owner(self, name: str) -> str:
        (owner,) = await self._call(message_bus.GetNameOwner(name), f"look for {name}", _CALL_TIMEOUT_S)
        return str(owner)

    async def _call(self, message: Message, doing: str, timeout_s: float) -> tuple[Any, ...]:
        serial = next(self._serials)
        send, receive = trio.open_memory_channel[Message](1)
        self._awaited[serial] = send
        try:
            with trio.fail_after(timeout_s):
                if self._end:
                    raise ApplyFailed(f"{doing}: {self._end}")
                await self._connection.send(message, serial=serial)
                reply = await receive.receive()
        except trio.TooSlowError:
            raise ApplyTimeout(f"{doing}: no answer within {timeout_s:.0f} s") from None
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            raise ApplyFailed(f"{doing}: {self._end or 'the connection to the message bus ended'}") from None
        finally:
            self._awaited.pop(serial, None)
        if reply.header.message_type is MessageType.error:
            words = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            raise BusError(reply.header.fields.get(HeaderFields.error_name, ""), words, doing)
        return tuple(reply.body)

    async def _receive_all(self) -> None:
        """Hand out what arrives, until the connection ends; then nobody waits any longer."""
        try:
            while True:
                self._dispatch(await self._connection.receive())
        except (trio.EndOfChannel, trio.BrokenResourceError):
            self._end = "the message bus closed the connection"
        except Exception as error:
            # Of a peer that does not keep to the protocol the parser raises whatever it trips over.
            self._end = f"the message bus sent what is no message ({type(error).__name__})"
        finally:
            for waiting in [*self._awaited.values(), *(send for _, send in self._subscriptions.values())]:
                waiting.close()

    def _dispatch(self, message: Message) -> None:
        fields = message.header.fields
        if message.header.message_type in (MessageType.method_return, MessageType.error):
            waiting = self._awaited.get(fields.get(HeaderFields.reply_serial, 0))
            if waiting is not None:
                with suppress(trio.WouldBlock):
                    waiting.send_nowait(message)
            return
        if message.header.message_type is not MessageType.signal:
            return
        signal = Signal(
            fields.get(HeaderFields.sender, ""),
            fields.get(HeaderFields.path, ""),
            fields.get(HeaderFields.interface, ""),
            fields.get(HeaderFields.member, ""),
            tuple(message.body),
        )
        for rule, send in self._subscriptions.values():
            if rule.matches(message):
                try:
                    send.send_nowait(signal)
                except trio.WouldBlock:
                    send.close()
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    pass


@asynccontextmanager
async def open_bus(address: str = SYSTEM_BUS, *, connect_timeout_s: float = _CONNECT_TIMEOUT_S) -> AsyncIterator[Bus]:
    """Connect to a bus by its D-Bus address. Raises ApplyFailed where nobody answers there."""
    try:
        with trio.fail_after(connect_timeout_s):
            stream = await trio.open_unix_socket(next(get_connectable_addresses(address)))
    except trio.TooSlowError:
        raise ApplyTimeout(f"the message bus at {address} took no connection") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise ApplyFailed(f"the message bus at {address} cannot be reached: {error}") from error
    failure: Exception | None = None
    async with stream:
        try:
            with trio.fail_after(connect_timeout_s):
                await _authenticate(stream)
        except trio.TooSlowError:
            limit = f"{connect_timeout_s:.0f} s"
            raise ApplyTimeout(f"the message bus at {address} did not answer within {limit}") from None
        except (AuthenticationError, ValueError, trio.BrokenResourceError) as error:
            raise ApplyFailed(f"the message bus at {address} refuses us: {error}") from error
        bus = Bus(DBusConnection(stream.socket))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bus._receive_all)
            try:
                await bus._call(message_bus.Hello(), f"greet the message bus at {address}", connect_timeout_s)
                yield bus
            except Exception as error:
                # Out of the nursery first, which would make a group of it.
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _authenticate(stream: trio.SocketStream) -> None:
    """Say who we are; the bus asks the kernel whether that is so."""
    authenticator = Authenticator(inc_null_byte=False)
    await stream.send_all(b"\0")
    for request in authenticator:
        await stream.send_all(request)
        answer = await stream.receive_some()
        if not answer:
            raise ValueError("it closed the connection")
        authenticator.feed(answer)
    await stream.send_all(BEGIN)
