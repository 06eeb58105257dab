"""/chain: HEAD and the blocks as they lie on disk."""

from __future__ import annotations

import os
import stat

import pytest

from opfs.core.names import BlockName
from opfs.errors import NotFound, ReadOnly
from opfs.vfs import chain as chain_module
from opfs.vfs.chain import UNTIL_KNOWN, ChainDirectory
from opfs.vfs.node import FOREVER, NEVER, Caller, Symlink

ME = Caller(uid=1000, gid=1000, pid=0)


def name(height: int) -> BlockName:
    return BlockName(height, f"{height:012x}")


def made_ns(height: int) -> int:
    return 1_800_000_000_000_000_000 + height


class Blocks:
    """Blocks in a directory, and /chain over them."""

    def __init__(self, path) -> None:
        self.path, self.names = path, []
        self.chain = ChainDirectory(("chain",), lambda: self.names, self.path_of)

    def path_of(self, name):
        return self.path / str(name)

    def add(self, height, **documents):
        block = self.path_of(name(height))
        plugin = block / "state" / "lxc"
        plugin.mkdir(parents=True)
        (block / "block.json").write_text('{"v":1}')
        os.utime(block / "block.json", ns=(0, made_ns(height)))
        (block / "events.jsonl").write_text("")
        for element, content in documents.items():
            (plugin / f"{element}.json").write_bytes(content)
        self.names.append(name(height))


@pytest.fixture
def blocks(tmp_path):
    blocks = Blocks(tmp_path)
    for height in range(3):
        blocks.add(height, web=b'{"memory": %d}' % height)
    return blocks


async def walk(chain, path):
    node = chain
    for part in path.split("/"):
        node = await node.lookup(part, ME)
    return node


async def names_in(directory):
    return [name for name, _ in await directory.entries(ME)]


async def read(file, offset=0, size=4096):
    handle = await file.open(os.O_RDONLY, ME)
    content = await handle.read(offset, size)
    await handle.release()
    return content


async def test_head_and_all_blocks_are_listed_lowest_first(blocks):
    assert await names_in(blocks.chain) == ["HEAD", *(str(name(height)) for height in range(3))]


async def test_head_is_the_newest_block_whenever_asked(blocks):
    head = await blocks.chain.lookup("HEAD", ME)
    assert isinstance(head, Symlink)
    assert (head.target, head.cache) == (str(name(2)), NEVER)
    blocks.add(3)
    assert (await blocks.chain.lookup("HEAD", ME)).target == str(name(3))
    assert str(name(3)) in await names_in(blocks.chain)


async def test_an_empty_chain_has_no_head(tmp_path):
    empty = Blocks(tmp_path).chain
    assert await names_in(empty) == []
    with pytest.raises(NotFound):
        await empty.lookup("HEAD", ME)


@pytest.mark.parametrize("wrong", ["00000001-ffffffffffff", "00000009-000000000009", "1", "..", "state", "", "head"])
async def test_what_is_no_block_does_not_exist(blocks, wrong):
    with pytest.raises(NotFound):
        await blocks.chain.lookup(wrong, ME)


async def test_a_directory_on_disk_that_is_no_block_does_not_show(blocks):
    (blocks.path / str(name(7))).mkdir()
    with pytest.raises(NotFound):
        await blocks.chain.lookup(str(name(7)), ME)


async def test_a_block_shows_what_it_holds(blocks):
    block = await blocks.chain.lookup(str(name(1)), ME)
    assert await names_in(block) == ["block.json", "events.jsonl", "state"]
    assert await names_in(await walk(block, "state/lxc")) == ["web.json"]
    assert await read(await walk(block, "state/lxc/web.json")) == b'{"memory": 1}'
    assert await read(await walk(block, "events.jsonl")) == b""


async def test_documents_keep_owner_mode_time_and_size(blocks):
    path = blocks.path_of(name(1)) / "state" / "lxc" / "web.json"
    path.chmod(0o640)
    os.utime(path, ns=(5, 5))
    node = await walk(blocks.chain, f"{name(1)}/state/lxc/web.json")
    listed = dict(await (await walk(blocks.chain, f"{name(1)}/state/lxc")).entries(ME))["web.json"]
    for attributes in (await node.attributes(ME), await listed.attributes(ME)):
        assert attributes.mode == stat.S_IFREG | 0o640
        assert (attributes.uid, attributes.gid) == (os.getuid(), os.getgid())
        assert (attributes.size, attributes.mtime_ns, attributes.nlink) == (13, 5, 1)


async def test_what_is_in_a_block_may_be_kept_for_ever(blocks):
    for path in (f"{name(1)}", f"{name(1)}/state", f"{name(1)}/state/lxc/web.json"):
        assert (await walk(blocks.chain, path)).cache == FOREVER


async def listed_times(chain):
    listing = await chain.entries(ME)
    return [(await node.attributes(ME)).mtime_ns for _, node in listing]


async def test_a_block_shows_when_it_was_made(blocks):
    assert await listed_times(blocks.chain) == [made_ns(height) for height in (2, 0, 1, 2)]
    blocks.add(3)
    found = await blocks.chain.lookup(str(name(3)), ME)
    attributes = await found.attributes(ME)
    assert (attributes.mtime_ns, attributes.nlink, attributes.mode) == (made_ns(3), 1, stat.S_IFDIR | 0o555)


async def test_a_block_is_asked_for_its_time_once(blocks):
    first = await listed_times(blocks.chain)
    for block in blocks.names:
        (blocks.path_of(block) / "block.json").unlink()
    assert await listed_times(blocks.chain) == first


async def test_a_listing_without_time_to_ask_shows_all_names_and_asks_again(blocks, monkeypatch):
    monkeypatch.setattr(chain_module, "TIMES_BUDGET_S", -1.0)
    first, second, third = [await listed_times(blocks.chain) for _ in range(3)]
    assert first == [made_ns(2), 0, 0, made_ns(2)]
    assert second == [made_ns(2), 0, made_ns(1), made_ns(2)]
    assert third == [made_ns(height) for height in (2, 0, 1, 2)]


async def test_attributes_are_kept_for_ever_only_when_they_are_known(blocks, monkeypatch):
    monkeypatch.setattr(chain_module, "TIMES_BUDGET_S", -1.0)
    policies = [node.cache for _, node in await blocks.chain.entries(ME)]
    assert policies[1:] == [UNTIL_KNOWN, UNTIL_KNOWN, FOREVER]
    assert UNTIL_KNOWN.attr_timeout_s == 0


async def test_reads_past_the_end_and_in_pieces(blocks, tmp_path):
    content = os.urandom(300_000)
    (blocks.path_of(name(1)) / "events.jsonl").write_bytes(content)
    handle = await (await walk(blocks.chain, f"{name(1)}/events.jsonl")).open(os.O_RDONLY, ME)
    pieces = [await handle.read(offset, 131_072) for offset in range(0, 400_000, 131_072)]
    await handle.release()
    assert b"".join(pieces) == content
    assert pieces[-1] == b""


async def test_opening_for_writing_is_refused(blocks):
    file = await walk(blocks.chain, f"{name(1)}/state/lxc/web.json")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
        with pytest.raises(ReadOnly):
            await file.open(flags, ME)


async def test_links_and_special_files_are_not_shown_nor_followed(blocks):
    plugin = blocks.path_of(name(1)) / "state" / "lxc"
    (plugin / "leak.json").symlink_to("/etc/shadow")
    os.mkfifo(plugin / "pipe.json")
    directory = await walk(blocks.chain, f"{name(1)}/state/lxc")
    assert await names_in(directory) == ["web.json"]
    for special in ("leak.json", "pipe.json"):
        with pytest.raises(NotFound):
            await directory.lookup(special, ME)
    file = await walk(directory, "web.json")
    (plugin / "web.json").unlink()
    (plugin / "web.json").symlink_to("/etc/shadow")
    with pytest.raises(OSError, match="symbolic links"):
        await read(file)


async def test_a_block_that_was_pruned_is_gone(blocks):
    block = await blocks.chain.lookup(str(name(0)), ME)
    blocks.names.pop(0)
    with pytest.raises(NotFound):
        await blocks.chain.lookup(str(name(0)), ME)
    with pytest.raises(NotFound):
        await block.lookup("nothing", ME)
