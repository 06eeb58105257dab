"""/ctl: commands by echo; the errno of the write is the answer, reading it lists the commands.

A command may have more to say: whoever opened the file for reading and writing reads that from the beginning,
by pread(2), until another one answers.

Every line of a write is one command, ended by a newline or by the write, as in cgroupfs; a shell that ignores
errors from close sees those from write. Later lines are not run after one that failed. What a command does
lies elsewhere: it is registered here with its help. Everyone may open the file, each command decides whom it
obeys. Trio thread only.
"""

from __future__ import annotations

import difflib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.names import ElementId
from opfs.errors import AccessDenied, InvalidRequest, NotFound, TooLarge
from opfs.vfs.node import AttributeChanges, Attributes, File, Handle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opfs.commit.catalog import Catalog
    from opfs.commit.confirmations import Confirmations
    from opfs.vfs.node import Caller

MAX_INPUT_BYTES = 64 << 10
"""An import may name a thousand elements in one command, which is one block."""


@dataclass(frozen=True, slots=True)
class Command:
    """One verb: `run` gets the words after it and may return an answer. It raises OpfsError where it refuses."""

    name: str
    example: str
    purpose: str
    run: Callable[[Sequence[str], Caller], Awaitable[str | None]]


class Ctl(File):
    """The file; `commands` are listed in the order given."""

    def __init__(self, commands: Sequence[Command], *, time_ns: int = 0) -> None:
        super().__init__(("ctl",))
        self._commands = {command.name: command for command in commands}
        self._time_ns = time_ns

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(mode=stat.S_IFREG | 0o666, mtime_ns=self._time_ns, ctime_ns=self._time_ns)

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        """Truncating is what a shell may do before it writes; there is nothing to truncate."""
        if changes != AttributeChanges(size=0):
            await super().set_attributes(changes, handle, caller)

    async def open(self, flags: int, caller: Caller) -> Handle:
        return _CommandLine(self.run_line, self.list_commands().encode(), direct_io=True)

    def list_commands(self) -> str:
        width = max((len(command.example) for command in self._commands.values()), default=0)
        return "".join(f"{command.example:<{width}}  {command.purpose}\n" for command in self._commands.values())

    async def run_line(self, line: str, caller: Caller) -> str | None:
        """Run one command and return its answer; an empty line is none. Raises NotFound for an unknown verb."""
        words = line.split()
        if not words:
            return None
        command = self._commands.get(words[0])
        if command is None:
            nearest = difflib.get_close_matches(words[0], self._commands, n=1)
            known = f"did you mean {nearest[0]}?" if nearest else f"there is {', '.join(self._commands)}"
            raise NotFound(f"there is no command {words[0]!r}", hint=known)
        return await command.run(words[1:], caller)


@dataclass(slots=True, eq=False)
class _CommandLine(Handle):
    run_line: Callable[[str, Caller], Awaitable[str | None]]
    answer: bytes

    async def read(self, offset: int, size: int) -> bytes:
        return self.answer[offset : offset + size]

    async def write(self, offset: int, data: bytes, caller: Caller) -> int:
        if len(data) > MAX_INPUT_BYTES:
            raise TooLarge(f"{len(data)} bytes are no command", hint=f"write at most {MAX_INPUT_BYTES} at a time")
        for line in _decode(data).split("\n"):
            answer = await self.run_line(line, caller)
            if answer is not None:
                self.answer = answer.encode("utf-8", "backslashreplace")
        return len(data)

    async def truncate(self, size: int, caller: Caller) -> None:
        """There is nothing to truncate."""


def make_confirm(catalog: Callable[[], Catalog], confirmations: Confirmations) -> Command:
    """`confirm`: the writer of an element says that a destructive change is meant."""

    async def run(words: Sequence[str], caller: Caller) -> None:
        match words:
            case [("delete" | "update") as op, name]:
                id = ElementId.parse(name)
            case _:
                raise InvalidRequest(
                    "confirm takes an operation and an element",
                    hint="write: confirm delete lxc/100, or confirm update …",
                )
        entry = catalog().get(id)
        if entry is None and (caller.uid != 0 or op == "delete"):
            raise NotFound(f"there is no element {id}")
        # what is not declared yet may destroy something by being written, and nobody but root can write it
        if entry is not None and caller.uid not in (0, entry.attributes.uid):
            raise AccessDenied(f"{id} belongs to another user", hint="its owner or root may confirm")
        confirmations.grant(op, id, caller.uid)

    return Command("confirm", "confirm delete lxc/100", "allow one unsafe delete or update, for five minutes", run)


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the command is not UTF-8 at byte {error.start + 1}") from None
