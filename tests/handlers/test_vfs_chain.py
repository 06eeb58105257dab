"""/chain: HEAD and the blocks as they lie on disk."""

from __future__ import annotations

import os
import stat

import pytest

from opfs.core.names import BlockName
from opfs.errors import IntegrityError, NotFound, ReadOnly
from opfs.vfs import chain as chain_module
from opfs.vfs.chain import UNTIL_KNOWN, ChainDirectory
from opfs.vfs.node import FOREVER, NEVER, Caller, Symlink

ME = Caller(uid=1000, gid=1000, pid=0)


def name(height: int) -> BlockName:
    return BlockName(height, f"{height:012x}")


def made_ns(height: int) -> int:
    return 1_800_000_000_000_000_000 + height


class NothingPruned:
    def is_pruned(self, name: BlockName) -> bool:
        return False


class Fingerprints:
    """A verifier that knows what was written with `Blocks.write`, and what it was asked."""

    def __init__(self) -> None:
        self.contents, self.asked, self.is_slow = {}, [], False

    def is_known(self, block, path):
        return not self.is_slow

    def check(self, block, path, content):
        self.asked.append((block.height, path))
        if self.contents.get((block, path)) != content:
            raise IntegrityError(f"{path} of block {block} was changed")

    def check_absent(self, block, path):
        if (block, path) in self.contents:
            raise IntegrityError(f"{path} of block {block} is missing")


class Blocks:
    """Blocks in a directory, and /chain over them."""

    def __init__(self, path) -> None:
        self.path, self.names, self.verifier = path, [], Fingerprints()
        self.chain = ChainDirectory(("chain",), lambda: self.names, self.path_of, self.verifier, NothingPruned())

    def path_of(self, name):
        return self.path / str(name)

    def add(self, height, **documents):
        block = self.path_of(name(height))
        plugin = block / "state" / "lxc"
        plugin.mkdir(parents=True)
        self.write(height, "block.json", b'{"v":1}')
        os.utime(block / "block.json", ns=(0, made_ns(height)))
        self.write(height, "events.jsonl", b"")
        for element, content in documents.items():
            self.write(height, f"state/lxc/{element}.json", content)
        self.names.append(name(height))

    def write(self, height, path, content):
        (self.path_of(name(height)) / path).write_bytes(content)
        self.verifier.contents[name(height), path] = content


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
    blocks.write(1, "events.jsonl", content)
    handle = await (await walk(blocks.chain, f"{name(1)}/events.jsonl")).open(os.O_RDONLY, ME)
    pieces = [await handle.read(offset, 131_072) for offset in range(0, 400_000, 131_072)]
    await handle.release()
    assert b"".join(pieces) == content
    assert pieces[-1] == b""


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("path", ["state/lxc/web.json", "events.jsonl", "block.json"])
async def test_changed_bytes_are_never_handed_out(blocks, path, is_slow):
    blocks.verifier.is_slow = is_slow
    (blocks.path_of(name(1)) / path).write_bytes(b'{"memory": 9}')
    handle = await (await walk(blocks.chain, f"{name(1)}/{path}")).open(os.O_RDONLY, ME)
    for offset in (0, 5, 0):
        with pytest.raises(IntegrityError):
            await handle.read(offset, 4)
    await handle.release()
    assert await read(await walk(blocks.chain, f"{name(2)}/state/lxc/web.json")) == b'{"memory": 2}'


async def test_what_changes_between_two_pieces_of_one_read_shows_in_neither(blocks):
    """The bytes that were checked are the bytes that are handed out."""
    content = os.urandom(300_000)
    blocks.write(1, "state/lxc/web.json", content)
    handle = await (await walk(blocks.chain, f"{name(1)}/state/lxc/web.json")).open(os.O_RDONLY, ME)
    first = await handle.read(0, 131_072)
    (blocks.path_of(name(1)) / "state/lxc/web.json").write_bytes(bytes(300_000))
    assert first + await handle.read(131_072, 300_000) == content
    assert blocks.verifier.asked == [(1, "state/lxc/web.json")]


async def test_a_file_that_was_emptied_cannot_be_opened(blocks):
    (blocks.path_of(name(1)) / "state/lxc/web.json").write_bytes(b"")
    with pytest.raises(IntegrityError):
        await (await walk(blocks.chain, f"{name(1)}/state/lxc/web.json")).open(os.O_RDONLY, ME)
    assert await read(await walk(blocks.chain, f"{name(1)}/events.jsonl")) == b""


async def test_what_is_read_again_is_checked_again(blocks):
    file = await walk(blocks.chain, f"{name(1)}/state/lxc/web.json")
    assert await read(file) == b'{"memory": 1}'
    blocks.path_of(name(1)).joinpath("state/lxc/web.json").write_bytes(b'{"memory": 9}')
    with pytest.raises(IntegrityError):
        await read(file)


async def test_a_planted_file_cannot_be_read(blocks):
    for path in ("state/lxc/planted.json", "planted", "state/lxc/web.json~"):
        (blocks.path_of(name(1)) / path).write_bytes(b"{}")
        with pytest.raises(IntegrityError):
            await read(await walk(blocks.chain, f"{name(1)}/{path}"))


async def test_a_file_that_was_removed_is_an_error_and_not_just_absent(blocks):
    plugin = blocks.path_of(name(1)) / "state" / "lxc"
    (plugin / "web.json").rename(plugin / "other.json")
    with pytest.raises(IntegrityError, match="missing"):
        await walk(blocks.chain, f"{name(1)}/state/lxc/web.json")
    with pytest.raises(NotFound):
        await walk(blocks.chain, f"{name(1)}/state/lxc/never.json")


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
    for special in ("leak.json", "pipe.json"):  # in no block, so they do not exist
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
