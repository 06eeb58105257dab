"""Names of plugins, elements, documents, drafts and blocks; pure.

Rules from interface.md: an element name matches `ELEMENT_NAME`; a file in a plugin's directory is a
document if its name is `<element>.json`, and a draft (an ordinary file, never applied) if it does not end
in `.json` or starts with a character that editors use for temporary files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from opfs.errors import InvalidRequest

ELEMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,199}\Z")
PLUGIN_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
BLOCK_NAME = re.compile(r"(\d{8,})-([0-9a-f]{12})\Z")
DOCUMENT_SUFFIX = ".json"
OWN_EVENTS = "opfs"
"""In place of a plugin's name: events about opfs itself, as `opfs/keys`. No plugin may be called so."""
_TEMPORARY_PREFIXES = (".", "#", "~", "_")


@dataclass(frozen=True, slots=True, order=True)
class ElementId:
    """One element of one plugin, e.g. `lxc/100`."""

    plugin: str
    element: str

    def __str__(self) -> str:
        return f"{self.plugin}/{self.element}"

    @property
    def path(self) -> str:
        """The path below `state/`, which is also the key of the state tree (format.md)."""
        return f"{self.plugin}/{self.element}{DOCUMENT_SUFFIX}"

    @classmethod
    def parse(cls, text: str) -> ElementId:
        """Read `plugin/element` or `plugin/element.json`; raises InvalidRequest."""
        plugin, slash, element = text.strip().removesuffix(DOCUMENT_SUFFIX).partition("/")
        if not slash or not PLUGIN_NAME.match(plugin):
            raise InvalidRequest(f"{text!r} is not an element", hint="write it as plugin/element, e.g. lxc/100")
        check_element_name(element)
        return cls(plugin, element)


def check_element_name(name: str) -> None:
    """Raise InvalidRequest, saying what is wrong with `name`, unless it is a valid element name."""
    if ELEMENT_NAME.match(name):
        return
    hint = "a name is 1 to 200 characters of A-Z a-z 0-9 . _ @ : + - and starts with a letter or digit"
    if len(name) > 200:
        raise InvalidRequest(f"the element name is {len(name)} characters long", hint=hint)
    bad = next((c for c in name if not re.match(r"[A-Za-z0-9._@:+-]", c)), name[:1])
    raise InvalidRequest(f"the element name {name!r} has a forbidden {bad!r}", hint=hint)


def is_draft(file_name: str) -> bool:
    """Whether `file_name` in a plugin's directory names a draft rather than a document."""
    return not file_name.endswith(DOCUMENT_SUFFIX) or file_name.startswith(_TEMPORARY_PREFIXES)


def element_of_file(file_name: str) -> str:
    """The element that the document `file_name` describes; raises InvalidRequest for a bad name."""
    element = file_name.removesuffix(DOCUMENT_SUFFIX)
    check_element_name(element)
    return element


@dataclass(frozen=True, slots=True, order=True)
class BlockName:
    """The name of a block in /chain: `<height, 8 digits or more>-<first 12 hex digits of its hash>`."""

    height: int
    short_hash: str

    def __str__(self) -> str:
        return f"{self.height:08d}-{self.short_hash}"

    @classmethod
    def parse(cls, text: str) -> BlockName:
        """Read a block's directory name; raises InvalidRequest."""
        match = BLOCK_NAME.match(text)
        if not match or f"{int(match[1]):08d}" != match[1]:
            raise InvalidRequest(f"{text!r} is not the name of a block", hint="e.g. 00000042-9f86d081884c")
        return cls(int(match[1]), match[2])
