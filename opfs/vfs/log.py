"""/chain/log and the proofs beside the blocks: what the transparency log shows, checked before it is handed out.

    /chain/log/checkpoint  log.vkey  tile/…       the files that any client of C2SP tlog-tiles reads
    /chain/<block>/block.tlog-proof               that the block's header is in the log, made when it is opened

Read-only. A full tile never changes and may be kept for ever, a partial one for a while; the checkpoint is made
anew with every block. Trio thread; the log is asked in a worker thread, because it reads files.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from opfs.core.merkle import check_inclusion, leaf_hash
from opfs.core.note import parse_checkpoint, parse_note
from opfs.core.tiles import Tile
from opfs.core.tlogproof import TlogProof
from opfs.errors import InvalidRequest, NotFound, ReadOnly
from opfs.vfs.generated import ContentHandle, GeneratedFile, ReadOnlyDirectory, is_writing
from opfs.vfs.node import FOREVER, NEVER, Attributes, CachePolicy, File, Handle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opfs.core.names import BlockName
    from opfs.ports import LogFileInfo, TransparencyLog
    from opfs.vfs.chain import BlockFiles
    from opfs.vfs.node import Caller, Node, NodeKey

PROOF = "block.tlog-proof"
WHILE_PARTIAL = CachePolicy(entry_timeout_s=5.0, attr_timeout_s=5.0, keep_pages=True)
"""A partial tile never changes either, but it goes when the full one is there."""


@dataclass(slots=True)
class LogDirectory(ReadOnlyDirectory):
    """A directory of the log; `path` is below the log, empty for the log itself."""

    log: TransparencyLog
    path: str = ""

    @property
    def cache(self) -> CachePolicy:
        return WHILE_PARTIAL if self.path.endswith(".p") else FOREVER

    async def lookup(self, name: str, caller: Caller) -> Node:
        return self._node(name, await trio.to_thread.run_sync(self.log.file_info, self._below(name)))

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        found = await trio.to_thread.run_sync(self.log.list_files, self.path)
        return [(name, self._node(name, found[name])) for name in sorted(found)]

    def _below(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def _node(self, name: str, info: LogFileInfo) -> Node:
        path = self._below(name)
        if info.size is None:
            return LogDirectory((*self.key, name), self.log, path, time_ns=info.time_ns)
        return LogFile((*self.key, name), self.log, path, info)


@dataclass(slots=True)
class LogFile(File):
    """A file of the log. One that changes is read past the page cache: whoever opened it sees one version."""

    log: TransparencyLog
    path: str
    info: LogFileInfo

    @property
    def cache(self) -> CachePolicy:
        try:
            return WHILE_PARTIAL if Tile.parse(self.path).is_partial else FOREVER
        except InvalidRequest:
            return NEVER

    async def attributes(self, caller: Caller) -> Attributes:
        time_ns = self.info.time_ns
        return Attributes(
            mode=stat.S_IFREG | 0o444,
            size=self.info.size or 0,
            atime_ns=time_ns,
            mtime_ns=time_ns,
            ctime_ns=time_ns,
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly(f"/{'/'.join(self.key)} is only read")
        content = await trio.to_thread.run_sync(self.log.read_file, self.path)
        return ContentHandle(content, direct_io=self.cache is NEVER)


def make_proofs(log: TransparencyLog, read_header: Callable[[BlockName], bytes]) -> BlockFiles:
    """What stands in a block's directory beside the block: its proof, against the newest checkpoint."""

    def files(key: NodeKey, block: BlockName, time_ns: int) -> Mapping[str, Node]:
        async def generate(caller: Caller) -> bytes:
            return await trio.to_thread.run_sync(prove_block, log, read_header, block)

        return {PROOF: GeneratedFile((*key, PROOF), generate, time_ns=time_ns)}

    return files


def prove_block(log: TransparencyLog, read_header: Callable[[BlockName], bytes], block: BlockName) -> bytes:
    """The bytes of `block.tlog-proof`; raises NotFound where the log is behind, IntegrityError where it is damaged."""
    height, checkpoint_bytes = block.height, log.checkpoint()
    checkpoint = parse_checkpoint(parse_note(checkpoint_bytes).text)
    if height >= checkpoint.size:
        raise NotFound(f"block {block} is not in the log yet", hint="see /status for what keeps the log back")
    hashes = tuple(log.inclusion_proof(height, checkpoint.size))
    check_inclusion(leaf_hash(read_header(block)), height, checkpoint.size, hashes, checkpoint.root)
    return TlogProof(height, hashes, checkpoint_bytes).encode()
