"""A restore state: everything that a fresh host needs to become another one, as one JSON file; pure.

It holds documents, whose they are, the names of secrets and of models, and settings; nothing transient, no value of
a secret, no cache. The same block and configuration give the same bytes. Reading believes nothing in the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.core.difference import is_secret
from opfs.core.document import MAX_DEPTH, parse_document
from opfs.core.names import ElementId
from opfs.core.position import join_pointer, locate
from opfs.core.restore_schema import PLUGINS, RESTORE_SCHEMA, SECTIONS, VERSION
from opfs.core.schema import DocumentSchema
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opfs.core.action import Document
    from opfs.core.header import BlockHeader

MAX_STATE_BYTES = 64 << 20
_LEVELS_AROUND = 3
"""Of the file around a document: the file, `plugins`, the plugin."""
_MODE_BITS = 8


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """Whose a document is: permission bits, and numbers, because names are the host's own."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    def to_json(self) -> dict[str, object]:
        return {"mode": f"{self.mode:04o}", "uid": self.uid, "gid": self.gid}


OF_ROOT = Access()


@dataclass(frozen=True, slots=True)
class RestoreState:
    """What a file says. `source` names the block it is of, `origin@00000041-9f86d081884c`, or is empty.

    `access` has the documents that are not `OF_ROOT`; `where` says at which JSON pointer of the file each document
    stands, as far as there is one. `retention` and `settings` are for people.
    """

    documents: Mapping[ElementId, Document]
    access: Mapping[ElementId, Access] = field(default_factory=dict)
    retention: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    models: Sequence[Mapping[str, object]] = ()
    source: str = ""
    where: Mapping[ElementId, str] = field(default_factory=dict)

    def secrets(self) -> Mapping[str, Sequence[ElementId]]:
        """The names of secrets that documents refer to, each with the elements that do."""
        return secrets_of(self.documents)


def secrets_of(documents: Mapping[ElementId, Document]) -> dict[str, list[ElementId]]:
    """The names in every `{"$secret": name}`, in order, each with its elements."""
    found: dict[str, list[ElementId]] = {}
    for id in sorted(documents):
        for name in sorted(set(_secret_names(documents[id]))):
            found.setdefault(name, []).append(id)
    return dict(sorted(found.items()))


def _secret_names(value: object) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if is_secret(item) and isinstance(item["$secret"], str):
                yield item["$secret"]
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def document_bytes(document: Document) -> bytes:
    """A document of the file as a file of its own: the same JSON, laid out for people."""
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()


def encode_state(state: RestoreState, header: BlockHeader) -> bytes:
    """The file, in UTF-8: `header` is that of the block whose documents these are."""
    by_plugin: dict[str, dict[str, Document]] = {}
    for id in sorted(state.documents):
        by_plugin.setdefault(id.plugin, {})[id.element] = state.documents[id]
    fields: dict[str, Any] = {
        "version": VERSION,
        "timestamp": header.time,
        "quadrants": {
            "q0": {
                "subvolume": "@chain",
                "storage_tier": "hot",
                "compression": "zstd",
                "hash_algo": "blake3",
                "snapshot_retention": dict(state.retention),
            }
        },
        "blockchain": {
            "origin": header.origin,
            "height": header.height,
            "block_hash": header.hash,
            "state_root": header.state_root,
            "anchor_interval": "every-block",
            "proof_type": "rfc6962",
        },
        "ai_models": [dict(model) for model in state.models],
        "security": {
            "access_control": {str(id): state.access[id].to_json() for id in sorted(state.access)},
            "secrets": list(state.secrets()),
        },
        "settings": dict(state.settings),
        **{section: by_plugin.pop(plugin, {}) for section, plugin in SECTIONS.items()},
        PLUGINS: by_plugin,
    }
    return (json.dumps(fields, ensure_ascii=False, indent=2) + "\n").encode()


def parse_fields(content: bytes) -> Document:
    """The JSON of a file; raises InvalidRequest with the spot, TooLarge for more than `MAX_STATE_BYTES`."""
    return parse_document(content, limit_bytes=MAX_STATE_BYTES, limit_depth=MAX_DEPTH + _LEVELS_AROUND)


def is_own_format(fields: Document) -> bool:
    """Whether the file says of itself that it is of this format, of whatever version."""
    version = fields.get("version")
    return isinstance(version, str) and version.startswith("opfs-")


def read_state(fields: Document, content: bytes) -> RestoreState:
    """What the fields of a file say; raises InvalidRequest, with the spot in `content`, for what is no restore state.

    Its documents are objects under names that elements can have: what they say is for their plugins to judge.
    """
    DocumentSchema(RESTORE_SCHEMA).check(fields, content)
    documents: dict[ElementId, Document] = {}
    where: dict[ElementId, str] = {}
    for path, plugin, elements in _sections(fields):
        for element, document in elements.items():
            id = ElementId(plugin, element)
            if id in documents:
                reason = f"{id} stands here, and in {where[id]} as well"
                raise _refused(content, (*path, element), reason, "keep one of them")
            documents[id], where[id] = document, join_pointer((*path, element))
    access = dict(_access(fields, documents, content))
    chain = fields.get("blockchain", {})
    source = ""
    if all(key in chain for key in ("origin", "height", "block_hash")):
        source = f"{chain['origin']}@{chain['height']:08d}-{chain['block_hash'][:12]}"
    retention = fields.get("quadrants", {}).get("q0", {}).get("snapshot_retention", {})
    return RestoreState(
        documents, access, retention, fields.get("settings", {}), fields.get("ai_models", ()), source, where
    )


def _sections(fields: Document) -> Iterator[tuple[tuple[str, ...], str, Mapping[str, Document]]]:
    """The places of documents: where, of which plugin, and the elements."""
    for section, plugin in SECTIONS.items():
        yield (section,), plugin, fields.get(section, {})
    for plugin, elements in fields.get(PLUGINS, {}).items():
        yield (PLUGINS, plugin), plugin, elements


def _access(
    fields: Document, documents: Mapping[ElementId, Document], content: bytes
) -> Iterator[tuple[ElementId, Access]]:
    for name, said in fields.get("security", {}).get("access_control", {}).items():
        path = ("security", "access_control", name)
        try:
            id = ElementId.parse(name)
        except InvalidRequest as error:
            raise _refused(content, path, error.reason, error.hint) from None
        if id not in documents:
            raise _refused(content, path, f"there is no document of {id} in this file", "leave it out")
        yield id, Access(int(said["mode"], _MODE_BITS), said["uid"], said["gid"])


def _refused(content: bytes, path: tuple[str, ...], reason: str, hint: str) -> InvalidRequest:
    return InvalidRequest(reason, hint=hint, location=locate(content, join_pointer(path), key=True))
