"""Whatever is written, the answer is an errno and a reason, the bytes are kept, and the mount lives."""

import errno
import json
import os

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")

MEBIBYTE = 1 << 20

# bytes, errno, and words of the reason
REFUSED = {
    "truncated": (b'{"hostname": "web"', errno.EINVAL, ["cut short", "line 1, column 19"]),
    "trailing comma": (b'{"hostname": "web",}', errno.EINVAL, ["comma"]),
    "not an object": (b"[1, 2]", errno.EINVAL, ["object"]),
    "no JSON at all": (b"hostname: web\n", errno.EINVAL, ["object"]),
    "two objects": (b"{} {}", errno.EINVAL, ["line 1, column 4"]),
    "wrong type": (b'{"memory": "512"}', errno.EINVAL, ["integer", "/memory", '"memory": 512']),
    "unknown key": (b'{"memmory": 512}', errno.EINVAL, ["unknown key", "did you mean 'memory'"]),
    "out of range": (b'{"memory": -1}', errno.EINVAL, ["/memory"]),
    "not UTF-8": (b'{"hostname": "\xff\xfe"}', errno.EINVAL, ["UTF-8", "column 15"]),
    "duplicate key": (b'{"memory": 512, "memory": 1024}', errno.EINVAL, ["twice", "memory"]),
    "NaN": (b'{"memory": NaN}', errno.EINVAL, ["NaN"]),
    "infinite": (b'{"cpulimit": 1e999}', errno.EINVAL, ["cpulimit"]),
    "deep": (b'{"a":' * 10_000, errno.EINVAL, ["deep"]),
    "deep and whole": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, errno.EINVAL, ["deep"]),
    "two mebibytes": (b'{"description": "' + b"x" * (2 * MEBIBYTE) + b'"}', errno.EFBIG, ["1,048,576"]),
    "a mebibyte of brackets": (b"{" * MEBIBYTE, errno.EINVAL, []),
    "terminal tricks": (b'{"\x1b[2Jhostname": 1}', errno.EINVAL, []),
}


def write(path, content):
    """Write as a program does, with one write(2) where the kernel allows; the errno, or 0."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno
    return 0


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_document(opfs, case):
    content, number, words = REFUSED[case]
    before = opfs.blocks()
    assert write(opfs.path("lxc/bad"), content) == number
    reason = (opfs.mount / "rejected/lxc/bad.reason").read_text()
    for word in words:
        assert word in reason, reason
    assert "\x1b" not in reason
    kept = (opfs.mount / "rejected/lxc/bad.json").read_bytes()
    assert content.startswith(kept)
    assert len(kept) == len(content) or len(content) >= MEBIBYTE  # refused before all of it was written
    # What was seen before is looked up meanwhile, and told above the reason as far as it is known.
    explained = reason.partition("  state/lxc/bad.json")[2]
    assert explained
    assert explained in (opfs.mount / "errors").read_text()
    assert opfs.blocks() == before
    assert not opfs.path("lxc/bad").exists()


BAD_NAMES = {
    "a space": ("a b.json", errno.EINVAL),
    "a newline": ("a\nb.json", errno.EINVAL),
    "an escape": ("a\x1b[31m.json", errno.EINVAL),
    "an umlaut": ("ä.json", errno.EINVAL),
    "a dash first": ("-rf.json", errno.EINVAL),
    "201 characters": ("a" * 201 + ".json", errno.EINVAL),
    "300 characters": ("a" * 300 + ".json", errno.EINVAL),
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_a_bad_name(opfs, case):
    name, number = BAD_NAMES[case]
    assert write(opfs.mount / "state/noop" / name, b"{}") == number
    assert "\x1b" not in (opfs.mount / "errors").read_text()


def test_a_name_that_is_not_text(opfs):
    path = os.fsencode(opfs.mount) + b"/state/noop/\xff.json"
    assert write(path, b"{}") == errno.EINVAL


def test_the_right_document_clears_the_refusal(opfs):
    assert write(opfs.path("file/cleared"), b'{"path": 1}') == errno.EINVAL
    assert (opfs.mount / "rejected/file/cleared.json").exists()
    opfs.put("file/cleared", path=str(opfs.lxc / "cleared"), content="x")
    assert not (opfs.mount / "rejected/file/cleared.json").exists()


def test_a_plugin_that_is_not_installed(opfs):
    assert write(opfs.mount / "state/nothing/x.json", b"{}") == errno.ENOENT


def test_a_large_good_document(opfs):
    text = json.dumps({"words": ["word"] * 120_000})
    assert len(text) < MEBIBYTE
    assert write(opfs.path("noop/large"), text.encode()) == 0
    assert opfs.path("noop/large").read_text() == text
    assert opfs.path("noop/large").stat().st_size == len(text)
    assert (opfs.mount / "chain/HEAD/state/noop/large.json").read_text() == text


def test_bad_queries_and_commands(opfs):
    for path, number in {
        "search/similar/%20": 0,
        "search/nearest/x": errno.ENOENT,
        "search/similar/ ": errno.EINVAL,
    }.items():
        try:
            (opfs.mount / path).read_text()
            found = 0
        except OSError as error:
            found = error.errno
        assert found == number, path
    assert write(opfs.mount / "ctl", b"confrim delete noop/x\n") == errno.ENOENT
    assert "did you mean confirm" in (opfs.mount / "errors").read_text()
    assert write(opfs.mount / "ctl", b"confirm\n") == errno.EINVAL
    assert write(opfs.mount / "ctl", b"\xff\n") == errno.EINVAL
    assert "confirm" in (opfs.mount / "ctl").read_text()


def test_the_mount_is_alive(opfs):
    status = (opfs.mount / "status").read_text()
    assert status.startswith("health")
    assert " ok" in status.splitlines()[0]
    opfs.put("noop/alive", yes=True)
    assert opfs.get("noop/alive") == {"yes": True}
