"""What takes a file from what it is to what its document says; pure.

A key that a document leaves out is left as it is; a new file gets 0644 root root. What may cost the user
something is classed by where the bytes that go away come from: those that opfs wrote are in the chain and
can be had back (`safe`); a file that somebody else wrote or changed is not. Replacing it is `disruptive`,
removing it `destructive`. Directories are removed only when they are empty, which nobody here can see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.core.action import Action, Document, Kind, Safety, StateDiff

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN = "file"
ATTRIBUTES = ("mode", "owner", "group")


def plan_file(element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """The ordered actions from `current` (None: not ours and not there) to `desired` (None: delete)."""
    if desired is None:
        actions = [] if current is None else list(_removal(Kind.DELETE, element, current))
    elif desired.get("state") == "absent":
        actions = list(_absence(element, current, desired))
    else:
        actions = list(_presence(element, current, desired))
    return StateDiff(PLUGIN, tuple(actions))


def type_of(document: Document) -> str:
    """What an element is: a file unless it says something else."""
    return str(document.get("type", "file"))


def is_there(document: Document | None) -> bool:
    """Whether an observed document describes what its element is: a file, a directory or a link."""
    return document is not None and document.get("state") != "absent" and "kind" not in document


def _removal(kind: Kind, element: str, current: Document) -> Iterator[Action]:
    path = current["path"]
    details = {"path": path, **({"type": type_of(current)} if type_of(current) != "file" else {})}
    what = {"directory": "the directory ", "symlink": "the link "}.get(type_of(current), "")
    if not is_there(current):
        found = f"the {current['kind']} at" if "kind" in current else "nothing at"
        yield Action(kind, element, "forget", f"forget {path}; {found} that path is left alone", details=details)
    elif current.get("origin") == "foreign":
        text = f"remove {what}{path}, which opfs did not write"
        yield Action(kind, element, "remove", text, Safety.DESTRUCTIVE, ("state",), details)
    elif current.get("origin") == "changed":
        text = f"remove {what}{path}, which was changed since opfs wrote it"
        yield Action(kind, element, "remove", text, Safety.DESTRUCTIVE, ("state",), details)
    else:
        yield Action(kind, element, "remove", f"remove {what}{path}", Safety.SAFE, ("state",), details)


def _absence(element: str, current: Document | None, desired: Document) -> Iterator[Action]:
    if current is not None and (is_there(current) or current["path"] != desired["path"]):
        yield from _removal(Kind.MODIFY, element, current)
    if current is not None and current["path"] != desired["path"]:
        path = desired["path"]
        text = f"remove {path}, if there is such a {type_of(desired)}"
        details = {"path": path, **({"type": type_of(desired)} if type_of(desired) != "file" else {})}
        yield Action(Kind.MODIFY, element, "remove", text, Safety.DESTRUCTIVE, ("path",), details)


def _presence(element: str, current: Document | None, desired: Document) -> Iterator[Action]:
    is_moved = current is not None and current["path"] != desired["path"]
    is_other = current is not None and is_there(current) and type_of(current) != type_of(desired)
    if current is None or is_moved or is_other or not is_there(current):
        if current is not None and (is_moved or is_other):
            # The old place first: a crash before the new one is written leaves nothing that nobody remembers.
            yield from _removal(Kind.MODIFY, element, current)
        # Of the place a file moves to nothing is known: whatever is there may be somebody's.
        safety = Safety.DISRUPTIVE if is_moved else Safety.SAFE
        verb = {"file": "write", "directory": "make", "symlink": "link"}[type_of(desired)]
        yield _write(Kind.MODIFY if current else Kind.CREATE, element, f"{verb} {_text(desired)}", safety, desired)
        return
    origin = current.get("origin")
    attributes = tuple(key for key in ATTRIBUTES if key in desired and desired[key] != current.get(key))
    if not _is_same_content(current, desired):
        whose = {"foreign": ", which opfs did not write", "changed": ", which was changed since"}.get(origin or "", "")
        safety = Safety.DISRUPTIVE if origin else Safety.SAFE
        yield _write(Kind.MODIFY, element, f"replace {_text(desired)}{whose}", safety, desired)
    elif origin:
        yield _write(Kind.MODIFY, element, f"take over {_text(desired)}", Safety.SAFE, desired)
    elif attributes:
        values = {key: desired[key] for key in attributes}
        text = f"set {', '.join(f'{key} {value}' for key, value in values.items())} of {desired['path']}"
        details = {"path": desired["path"], **values}
        yield Action(Kind.MODIFY, element, "set-attributes", text, Safety.SAFE, attributes, details)


def _is_same_content(current: Document, desired: Document) -> bool:
    if type_of(desired) != "file":
        return bool(current.get("target") == desired.get("target"))
    for key in ("content", "source"):
        if key in desired:
            return bool(current.get(key) == desired[key])
    # An observation of a file that is no text, used as a wish: all it holds is the digest.
    return current.get("digest") is not None and current.get("digest") == desired.get("digest")


def _write(kind: Kind, element: str, text: str, safety: Safety, desired: Document) -> Action:
    keys = ("path", "type", "content", "source", "target", *ATTRIBUTES)
    details = {key: desired[key] for key in keys if key in desired}
    step = {"file": "write", "directory": "make-directory", "symlink": "link"}[type_of(desired)]
    return Action(kind, element, step, text, safety, tuple(details), details)


def _text(desired: Document) -> str:
    if type_of(desired) == "directory":
        return f"the directory {desired['path']}" + (f" (mode {desired['mode']})" if "mode" in desired else "")
    if type_of(desired) == "symlink":
        return f"{desired['path']} to {desired['target']}"
    if "source" in desired:
        what = f"copy of {desired['source']}"
    else:
        size = len(desired.get("content", "").encode("utf-8", "surrogatepass"))
        what = f"{size} byte{'' if size == 1 else 's'}"
    mode = f", mode {desired['mode']}" if "mode" in desired else ""
    return f"{desired['path']} ({what}{mode})"
