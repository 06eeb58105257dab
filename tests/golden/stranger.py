"""A verifier of proof bundles by somebody who has only docs/format.md: nothing of opfs is imported here.

It needs hashlib, blake3 and, for signatures, cryptography. `verify` says "verified", "unreadable", or the name of
the step that fails. As a program: python stranger.py FILE KEY_FILE [DOCUMENT].
"""

from __future__ import annotations

import base64
import json
import re
import sys
from datetime import datetime
from hashlib import sha256

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

MEMBERS = {
    "element": {
        "v", "kind", "plugin", "element", "content", "document", "state_path", "header", "log_path", "checkpoint",
    },
    "event": {"v", "kind", "event", "event_path", "document", "header", "log_path", "checkpoint"},
    "consistency": {"v", "kind", "old", "new", "consistency_path"},
}  # fmt: skip
HEADER = {
    "v", "origin", "height", "prev", "time", "state_root", "state_count", "events_root", "events_first", "events_count",
}  # fmt: skip
EVENT = {
    "v", "seq", "plugin", "element", "op", "content", "prev_event", "time", "actor", "message", "plan", "plugin_hash",
}  # fmt: skip
MAX_BUNDLE_BYTES = 8 << 20
MAX_INTEGER = 2**53 - 1
MAX_SIZE = 2**63 - 1


class Unreadable(Exception):
    pass


class Fails(Exception):
    """The argument is the name of the step."""


# --- JSON ----------------------------------------------------------------------------------------------


def canonical(value) -> bytes:
    """RFC 8785 for what the page allows. Its order of members is that of UTF-16 code units."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be", "surrogatepass"))
        return b"{" + b",".join(canonical(k) + b":" + canonical(v) for k, v in members) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
        raise ValueError("a number that no record has")
    return json.dumps(value, ensure_ascii=False).encode()


def load(data: bytes):
    try:
        value = json.loads(data)
        ok = canonical(value) == data
    except (ValueError, RecursionError):
        raise Unreadable from None
    if not ok:
        raise Unreadable
    return value


def is_hash(value) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None and value != "0" * 64


def is_path(value) -> bool:
    return isinstance(value, list) and len(value) <= 256 and all(map(is_hash, value))


def read_bundle(data: bytes) -> dict:
    if len(data) > MAX_BUNDLE_BYTES or data[-1:] != b"\n":
        raise Unreadable
    bundle = load(data[:-1])
    if not isinstance(bundle, dict) or type(bundle.get("v")) is not int or bundle["v"] != 1:
        raise Unreadable
    kind = bundle.get("kind")
    if not isinstance(kind, str) or bundle.keys() != MEMBERS.get(kind):
        raise Unreadable
    fine = {
        "plugin": lambda v: isinstance(v, str) and re.fullmatch("[a-z][a-z0-9-]{0,31}", v),
        "element": lambda v: isinstance(v, str) and re.fullmatch("[A-Za-z0-9][A-Za-z0-9._@:+-]{0,199}", v),
        "content": lambda v: v is None or is_hash(v),
        "document": lambda v: v is None or isinstance(v, str),
        "state_path": is_state_path,
        "event_path": is_path,
        "log_path": is_path,
        "consistency_path": is_path,
    }
    for name, value in bundle.items():
        if name not in ("v", "kind") and not fine.get(name, lambda v: isinstance(v, str))(value):
            raise Unreadable
    return bundle


def is_state_path(value) -> bool:
    if not isinstance(value, dict) or value.keys() != {"siblings", "other"}:
        return False
    siblings, other = value["siblings"], value["other"]
    is_leaf = isinstance(other, dict) and other.keys() == {"key", "content"} and all(map(is_hash, other.values()))
    if other is not None and not is_leaf:
        return False
    return (
        isinstance(siblings, list) and len(siblings) <= 256 and all(item is None or is_hash(item) for item in siblings)
    )


# --- checkpoints and signatures ------------------------------------------------------------------------


def from_base64(text: str) -> bytes:
    value = base64.b64decode(text, validate=True)
    if base64.b64encode(value).decode() != text:
        raise ValueError
    return value


def read_key(text: str):
    """name, key id, type, public key of a verifier key."""
    name, key_id, encoded = text.strip().split("+", 2)
    raw = from_base64(encoded)
    assert sha256(name.encode() + b"\n" + raw).digest()[:4].hex() == key_id
    return name, bytes.fromhex(key_id), raw[0], raw[1:]


def read_text(text: str):
    """The text itself, and origin, size and root."""
    origin, size, encoded, end = text.split("\n")
    root = from_base64(encoded)
    if not origin or end or not re.fullmatch("0|[1-9][0-9]{0,18}", size) or int(size) > MAX_SIZE or len(root) != 32:
        raise ValueError
    return text, origin, int(size), root


def read_checkpoint(note: str, may_be_unsigned=False):
    """The text, origin, size, root, and signatures as (name, key id, signature)."""
    try:
        if may_be_unsigned and "\n\n" not in note:
            return *read_text(note), []
        if any(ord(c) < 32 and c != "\n" for c in note) or len(note.encode()) > 1_000_000:
            raise ValueError
        text, empty_line, lines = note.rpartition("\n\n")
        if not empty_line or not lines.endswith("\n") or lines.count("\n") > 100:
            raise ValueError
        signatures = []
        for line in lines[:-1].split("\n"):
            dash, name, encoded = line.split(" ")
            raw = from_base64(encoded)
            if dash != "\N{EM DASH}" or not name or re.search(r"[\s+]", name) or len(raw) < 5:
                raise ValueError
            signatures.append((name, raw[:4], raw[4:]))
        return *read_text(text + "\n"), signatures
    except ValueError:
        raise Fails("checkpoint") from None


def lines_of(checkpoint, key) -> list[bool]:
    """For each signature line of the key, whether it is good."""
    name, key_id, kind, public = key
    return [
        signature_is_good(checkpoint, name, kind, public, s) for n, i, s in checkpoint[4] if (n, i) == (name, key_id)
    ]


def signature_is_good(checkpoint, name, kind, public, signature) -> bool:
    text, origin, size, root, _ = checkpoint
    try:
        if kind == 1:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
            return True
        stamp, rest = signature[:8], signature[8:]
        if len(stamp) < 8 or stamp[0] >= 128:
            return False
        if kind == 4:
            message = b"cosignature/v1\ntime %d\n" % int.from_bytes(stamp) + text.encode()
            Ed25519PublicKey.from_public_bytes(public).verify(rest, message)
            return True
        if kind == 6:
            names = [bytes([len(n.encode())]) + n.encode() for n in (name, origin)]
            message = b"subtree/v1\n\0" + names[0] + stamp + names[1] + bytes(8) + size.to_bytes(8) + root
            MLDSA44PublicKey.from_public_bytes(public).verify(rest, message)
            return True
    except (InvalidSignature, ValueError):
        pass
    return False


# --- trees ---------------------------------------------------------------------------------------------


def log_leaf(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def log_node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]):
    """The root an inclusion path leads to, by the RFC's recursive definition; None for a path of another length."""
    if not 0 <= index < size:
        return None
    if size == 1:
        return leaf if not path else None
    if not path:
        return None
    half = 1 << (size - 1).bit_length() - 1
    if index < half:
        below = root_of(leaf, index, half, path[:-1])
        return below and log_node(below, path[-1])
    below = root_of(leaf, index - half, size - half, path[:-1])
    return below and log_node(path[-1], below)


def roots_of(old_size: int, size: int, path: list[bytes], old_root: bytes, whole: bool = True):
    """The old and the new root a consistency path leads to (SUBPROOF of RFC 6962, read backwards), or None."""
    if old_size == size:
        if whole:
            return (old_root, old_root) if not path else None
        return (path[0], path[0]) if len(path) == 1 else None
    if not path:
        return None
    half = 1 << (size - 1).bit_length() - 1
    if old_size <= half:
        below = roots_of(old_size, half, path[:-1], old_root, whole)
        return below and (below[0], log_node(below[1], path[-1]))
    below = roots_of(old_size - half, size - half, path[:-1], old_root, False)
    return below and (log_node(path[-1], below[0]), log_node(path[-1], below[1]))


def state_root(key: bytes, end: bytes, siblings: list[bytes]) -> bytes:
    bits = "".join(f"{byte:08b}" for byte in key)
    for bit, sibling in reversed(list(zip(bits, siblings, strict=False))):
        pair = end + sibling if bit == "0" else sibling + end
        end = blake3(b"\1" + pair).digest()
    return end


# --- the steps -----------------------------------------------------------------------------------------


def verify(data: bytes, keys: list[str], witnesses: list[str] = (), document: bytes | None = None) -> str:
    try:
        bundle = read_bundle(data)
        keys = [read_key(key) for key in keys]
        witnesses = [read_key(key) for key in witnesses]
        if bundle["kind"] == "consistency":
            check_consistency(bundle, keys, witnesses)
            if document is not None:
                raise Fails("document")
        else:
            check_block(bundle, keys, witnesses, document)
    except Unreadable:
        return "unreadable"
    except Fails as fails:
        return fails.args[0]
    return "verified"


def check_signatures(checkpoint, keys, witnesses) -> None:
    signed = {key: lines_of(checkpoint, key) for key in keys}
    if not keys or not all(key[0] == checkpoint[1] and all(lines) for key, lines in signed.items()):
        raise Fails("signature")
    if {key[2] for key in keys} != {key[2] for key, lines in signed.items() if lines}:
        raise Fails("signature")
    for key in witnesses:
        lines = lines_of(checkpoint, key)
        if not lines or not all(lines):
            raise Fails("cosignature")


def check_consistency(bundle, keys, witnesses) -> None:
    old, new = read_checkpoint(bundle["old"], may_be_unsigned=True), read_checkpoint(bundle["new"])
    if old[1] != new[1] or old[2] > new[2]:
        raise Fails("checkpoint")
    if old[4]:
        check_signatures(old, keys, ())
    check_signatures(new, keys, witnesses)
    path = [bytes.fromhex(item) for item in bundle["consistency_path"]]
    if old[2] == 0:
        if path or old[3] != sha256().digest() or (new[2] == 0 and new[3] != old[3]):
            raise Fails("consistency")
    elif roots_of(old[2], new[2], path, old[3]) != (old[3], new[3]):
        raise Fails("consistency")


def check_block(bundle, keys, witnesses, document) -> None:
    checkpoint = read_checkpoint(bundle["checkpoint"])
    check_signatures(checkpoint, keys, witnesses)
    header = read_record(bundle["header"], HEADER, "header")
    if len(bundle["header"].encode()) > 65_535:
        raise Fails("header")
    numbers = [header[name] for name in ("height", "state_count", "events_first", "events_count")]
    hashes = [header[name] for name in ("prev", "state_root", "events_root")]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise Fails("header")
    if not all(isinstance(item, str) and re.fullmatch("[0-9a-f]{64}", item) for item in hashes):
        raise Fails("header")
    if not is_time(header["time"]) or header["origin"] != checkpoint[1] or header["height"] >= checkpoint[2]:
        raise Fails("header")
    path = [bytes.fromhex(item) for item in bundle["log_path"]]
    if root_of(log_leaf(bundle["header"].encode()), header["height"], checkpoint[2], path) != checkpoint[3]:
        raise Fails("log-inclusion")
    content = check_event(bundle, header) if bundle["kind"] == "event" else check_state(bundle, header)
    for given in (bundle["document"] and bundle["document"].encode(), document):
        if bundle["document"] == "" or (given is not None and blake3(given).hexdigest() != content):
            raise Fails("document")


def check_event(bundle, header):
    event = read_record(bundle["event"], EVENT, "event")
    if type(event["seq"]) is not int or not (event["content"] is None or is_hash(event["content"])):
        raise Fails("event")
    path = [bytes.fromhex(item) for item in bundle["event_path"]]
    index = event["seq"] - header["events_first"]
    root = root_of(log_leaf(bundle["event"].encode()), index, header["events_count"], path)
    if root is None or root.hex() != header["events_root"]:
        raise Fails("event")
    return event["content"]


def check_state(bundle, header):
    key = blake3(f"{bundle['plugin']}/{bundle['element']}.json".encode()).digest()
    siblings = [bytes(32) if item is None else bytes.fromhex(item) for item in bundle["state_path"]["siblings"]]
    other, content = bundle["state_path"]["other"], bundle["content"]
    if siblings and siblings[-1] == bytes(32):
        raise Fails("state-path")
    if content is not None:
        if other is not None:
            raise Fails("state-path")
        end = blake3(b"\0" + key + bytes.fromhex(content)).digest()
    elif other is not None:
        there = bytes.fromhex(other["key"])
        if there == key or int.from_bytes(there) >> 256 - len(siblings) != int.from_bytes(key) >> 256 - len(siblings):
            raise Fails("state-path")
        end = blake3(b"\0" + there + bytes.fromhex(other["content"])).digest()
    else:
        end = bytes(32)
    if state_root(key, end, siblings).hex() != header["state_root"]:
        raise Fails("state-path")
    return content


def read_record(text: str, members: set, step: str) -> dict:
    try:
        record = load(text.encode())
    except Unreadable:
        raise Fails(step) from None
    if not isinstance(record, dict) or record.keys() != members or record["v"] != 1 or record["v"] is True:
        raise Fails(step)
    return record


def is_time(value) -> bool:
    try:
        match = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.[0-9]{9}Z", value)
        return match is not None and bool(datetime.fromisoformat(match[1]))
    except (ValueError, TypeError):
        return False


if __name__ == "__main__":
    files = []
    for name in sys.argv[1:]:
        with open(name, "rb") as file:
            files.append(file.read())
    result = verify(files[0], files[1].decode().split(), document=files[2] if len(files) > 2 else None)
    print(result)
    sys.exit(0 if result == "verified" else 2 if result == "unreadable" else 5)
