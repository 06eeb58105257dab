"""What lies outside the commit path, as Protocols: implemented by adapters and by fakes.

Adapters raise only `opfs.errors`.
"""

from opfs.ports.history import EventLine, EventStretch, History, RecordedEvent
from opfs.ports.meaning import Embedder, Hit, Index, IndexedEvent
from opfs.ports.plugins import AppliesMany, Capabilities, Dependency, Plugin, Sighting
from opfs.ports.storage import (
    Clock,
    DocumentWrite,
    Erasure,
    FileAttributes,
    LogFileInfo,
    SnapshotStore,
    StoredDocument,
    TransparencyLog,
)

__all__ = [
    "AppliesMany",
    "Capabilities",
    "Clock",
    "Dependency",
    "DocumentWrite",
    "Embedder",
    "Erasure",
    "EventLine",
    "EventStretch",
    "FileAttributes",
    "History",
    "Hit",
    "Index",
    "IndexedEvent",
    "LogFileInfo",
    "Plugin",
    "RecordedEvent",
    "Sighting",
    "SnapshotStore",
    "StoredDocument",
    "TransparencyLog",
]
