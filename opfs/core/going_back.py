"""What it takes to be again as a block was: which documents to write and which to delete; and the words for it. Pure.

Documents are compared by content hash, byte for byte: what is already as it was is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.label import is_label
from opfs.core.moments import is_when
from opfs.core.names import ElementId
from opfs.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from opfs.core.names import BlockName

_WORDS_OF_A_TIME = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """What goes back: these plugins and these elements, or everything where there are neither."""

    plugins: frozenset[str] = frozenset()
    elements: frozenset[ElementId] = frozenset()

    @classmethod
    def parse(cls, words: Sequence[str]) -> Scope:
        """Read `lxc` and `lxc/100`; raises InvalidRequest."""
        elements = frozenset(ElementId.parse(word) for word in words if "/" in word)
        plugins = frozenset(word for word in words if "/" not in word)
        return cls(plugins, elements)

    def holds(self, id: ElementId) -> bool:
        return not (self.plugins or self.elements) or id.plugin in self.plugins or id in self.elements

    def check_known(self, known: Collection[ElementId], block: BlockName) -> None:
        """Raise NotFound for what is neither among `known`, the elements of then and now, nor has one there."""
        plugins = {id.plugin for id in known}
        unknown = [*sorted(self.plugins - plugins), *map(str, sorted(self.elements.difference(known)))]
        if unknown:
            raise NotFound(
                f"{unknown[0]} was not there in block {block}, and is not there now",
                hint=f"ls chain/{block}/state lists what was there",
            )


@dataclass(frozen=True, slots=True)
class Difference:
    """The elements to write as they were, and those to delete because they were not there; each by name."""

    written: tuple[ElementId, ...]
    deleted: tuple[ElementId, ...]


def difference(then: Mapping[ElementId, str], now: Mapping[ElementId, str], scope: Scope) -> Difference:
    """What has to be done to `now` for `then`: the content hash, hex, of every document."""
    written = sorted(id for id, content in then.items() if scope.holds(id) and now.get(id) != content)
    return Difference(tuple(written), tuple(sorted(id for id in now if scope.holds(id) and id not in then)))


def split_when(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The block, time or label that the first words name, and the words after it: `2 hours ago lxc` has both.

    Raises InvalidRequest where they name none.
    """
    for count in range(min(_WORDS_OF_A_TIME, len(words)), 0, -1):
        said = " ".join(words[:count])
        if is_when(said) or (count == 1 and is_label(said)):
            return said, words[count:]
    raise InvalidRequest(
        "rollback takes a block, a time or a label, and then what shall go back",
        hint="write: rollback 41, or rollback 2 hours ago lxc/100",
    )


def message_of(block: BlockName) -> str:
    """The message of every event of the new block."""
    return f"rollback to block {block.height} ({block})"
