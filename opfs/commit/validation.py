"""Whether a document may be committed at all: JSON, opfs' own keys, the plugin's schema and check, its secrets.

Looks at nothing but the document and the plugins; changes nothing. Thread-safe: a document that takes long is checked
in a worker thread.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from opfs.commit.foreign import check_rested, report_bug, returning
from opfs.core.document import parse_document
from opfs.core.meta import AFTER, Declared, split_meta
from opfs.core.names import DOCUMENT_SUFFIX
from opfs.core.position import join_pointer, locate
from opfs.core.schema import DocumentSchema
from opfs.core.secretfields import check_secrets, has_secrets
from opfs.errors import ApplyTimeout, InvalidRequest, NotFound, OpfsError, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.names import ElementId
    from opfs.ports import Plugin

# A small document takes 10 µs; a hostile one of a mebibyte can take half a second.
INLINE_BYTES = 16 << 10

CHECK_TIMEOUT_S = 60.0
CHECKS_AT_ONCE = 8
"""Of long documents. Python cannot end a thread: one that never comes back keeps its place until opfs stops."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """A plugin's schema, compiled; `marks_secrets` says whether there is anything to look for."""

    schema: DocumentSchema
    marks_secrets: bool


class Validator:
    """Judges documents by their plugins."""

    def __init__(self, plugins: Mapping[str, Plugin]) -> None:
        self._plugins = plugins
        self._rules: dict[str, _Rules] = {}
        self._threads = trio.CapacityLimiter(CHECKS_AT_ONCE)

    def require(self, name: str) -> Plugin:
        """The plugin of that name; raises NotFound, Rejected where it cannot work here, ApplyTimeout where it rests."""
        plugin = self._plugins.get(name)
        if plugin is None:
            known = ", ".join(sorted(self._plugins))
            raise NotFound(f"there is no plugin {name!r}", hint=f"installed are: {known}")
        reason = plugin.why_unavailable()
        if reason:
            raise Rejected(f"the plugin {name} cannot work on this host: {reason}")
        check_rested(plugin)
        return plugin

    async def validate(self, id: ElementId, content: bytes | None) -> Declared | None:
        """`check`, in a worker thread where it may take long; None for a delete. Raises ApplyTimeout for too long."""
        plugin = self.require(id.plugin)
        if content is None:
            return None
        if len(content) <= INLINE_BYTES and not plugin.capabilities.slow_check:
            return self.check(id, content)
        with trio.move_on_after(CHECK_TIMEOUT_S):
            return await trio.to_thread.run_sync(self.check, id, content, abandon_on_cancel=True, limiter=self._threads)
        raise ApplyTimeout(f"{id}: the plugin {id.plugin} was still checking the document after {CHECK_TIMEOUT_S:g} s")

    def check(self, id: ElementId, content: bytes) -> Declared:
        """The document in its two parts; raises InvalidRequest, NotFound or Rejected."""
        plugin = self.require(id.plugin)
        if id.element.endswith(DOCUMENT_SUFFIX):
            # wherever people write an element, the suffix may be left out: such a one could not be told from another
            raise InvalidRequest(f"{id.path} ends in .json twice", hint=f"write {id}")
        declared = split_meta(parse_document(content), content, id)
        rules = self._rules_of(plugin)
        if rules.marks_secrets:
            check_secrets(plugin.schema, declared.document, content)
        rules.schema.check(declared.document, content)
        self._check_after(declared, content)
        try:
            with returning(plugin, id):
                plugin.check(id.element, declared.document)
        except InvalidRequest as error:
            if error.location is not None:
                error.location = locate(content, error.location.pointer)
            raise
        except OpfsError:
            raise
        except Exception as error:
            raise InvalidRequest(report_bug(plugin, id, error)) from error
        return declared

    def _rules_of(self, plugin: Plugin) -> _Rules:
        rules = self._rules.get(plugin.name)
        if rules is None:
            rules = self._rules[plugin.name] = _Rules(DocumentSchema(plugin.schema), has_secrets(plugin.schema))
        return rules

    def _check_after(self, declared: Declared, content: bytes) -> None:
        """A name that no plugin can ever provide is a slip, and would wait for ever."""
        for index, needed in enumerate(declared.meta.after):
            if needed.plugin not in self._plugins:
                near = difflib.get_close_matches(needed.plugin, self._plugins, n=1)
                known = ", ".join(sorted(self._plugins))
                raise InvalidRequest(
                    f"'{AFTER}' names {needed}, and there is no plugin {needed.plugin!r}",
                    hint=f"did you mean {near[0]}/{needed.element}?" if near else f"installed are: {known}",
                    location=locate(content, join_pointer((AFTER, index))),
                )
