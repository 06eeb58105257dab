"""/chain/log and the proofs beside the blocks, asked as the kernel asks."""

from __future__ import annotations

import os
import stat

import pytest

from opfs.core.names import BlockName
from opfs.core.note import open_note
from opfs.core.tlogproof import parse_tlog_proof
from opfs.errors import IntegrityError, NotFound, ReadOnly
from opfs.testing.log import MemoryLog
from opfs.vfs.log import PROOF, WHILE_PARTIAL, LogDirectory, make_proofs
from opfs.vfs.node import FOREVER, NEVER, Caller

ME = Caller(uid=1000, gid=1000, pid=0)
TIME_NS = 1_800_000_000 * 10**9


@pytest.fixture
def log():
    log = MemoryLog()
    log.append([b"header %d" % number for number in range(300)], TIME_NS)
    return log


@pytest.fixture
def directory(log):
    return LogDirectory(("chain", "log"), log)


async def find(directory, path):
    node = directory
    for name in path.split("/"):
        node = await node.lookup(name, ME)
    return node


async def read(node):
    handle = await node.open(os.O_RDONLY, ME)
    try:
        return await handle.read(0, 1 << 20)
    finally:
        await handle.release()


async def test_the_listing_is_the_logs(directory):
    assert [name for name, _ in await directory.entries(ME)] == ["checkpoint", "log.vkey", "tile"]
    tiles = await find(directory, "tile/0")
    assert [name for name, _ in await tiles.entries(ME)] == ["000", "001.p"]
    assert [name for name, _ in await (await find(directory, "tile")).entries(ME)] == ["0", "1", "entries"]


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("checkpoint", NEVER),
        ("log.vkey", NEVER),
        ("tile/0/000", FOREVER),
        ("tile/entries/000", FOREVER),
        ("tile/0/001.p/44", WHILE_PARTIAL),
        ("tile/1/000.p/1", WHILE_PARTIAL),
    ],
)
async def test_files_show_their_bytes_size_and_how_long_they_may_be_kept(directory, log, path, policy):
    node = await find(directory, path)
    attributes = await node.attributes(ME)
    assert node.cache is policy
    assert await read(node) == log.read_file(path)
    assert (attributes.size, attributes.mode) == (len(log.read_file(path)), stat.S_IFREG | 0o444)
    assert node.key == ("chain", "log", *path.split("/"))


async def test_an_open_checkpoint_stays_what_it_was(directory, log):
    handle = await (await find(directory, "checkpoint")).open(os.O_RDONLY, ME)
    before = log.checkpoint()
    log.append((b"header 300",), TIME_NS)
    assert await handle.read(0, 1 << 20) == before
    assert handle.direct_io
    assert await read(await find(directory, "checkpoint")) == log.checkpoint() != before


async def test_what_is_not_there_does_not_exist(directory):
    for path in ("journal", "tile/9", "tile/0/001", "tile/0/001.p/45", "tile/x"):
        with pytest.raises(NotFound):
            await find(directory, path)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
async def test_nothing_is_written(directory, flags):
    with pytest.raises(ReadOnly):
        await (await find(directory, "checkpoint")).open(flags, ME)
    with pytest.raises(ReadOnly):
        await (await find(directory, "tile")).rmdir("0", ME)


def proof_node(log, height, header=None):
    block = BlockName(height, "0" * 12)
    files = make_proofs(log, lambda name: header or b"header %d" % name.height)
    return files(("chain", str(block)), block, TIME_NS)[PROOF]


@pytest.mark.parametrize("height", [0, 1, 255, 256, 299])
async def test_a_blocks_proof_verifies(log, height):
    node = proof_node(log, height)
    proof = parse_tlog_proof(await read(node))
    checked = proof.check(b"header %d" % height, log.origin, log.verifiers)
    assert (proof.index, checked.checkpoint.size) == (height, 300)
    assert open_note(proof.checkpoint, log.verifiers)
    assert (await node.attributes(ME)).mtime_ns == TIME_NS


async def test_a_proof_that_would_not_verify_is_not_handed_out(log):
    with pytest.raises(IntegrityError):
        await read(proof_node(log, 7, header=b"changed"))


async def test_a_block_that_the_log_has_not_yet_has_no_proof(log):
    with pytest.raises(NotFound, match="is not in the log yet"):
        await read(proof_node(log, 300))
