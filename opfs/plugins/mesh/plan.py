"""What takes this host into a mesh, along with its changes, and out of it; pure.

A host that has no interface yet does not know which node it is before its private key is read, which happens when
the plan is carried out: so it joins in one step. From then on its interface tells, and a change is planned step by
step, as for any WireGuard interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.clients.wireguard.tunnel import compare_tunnel, plan_tunnel
from opfs.core.action import Action, Difference, Kind, Safety, StateDiff
from opfs.core.difference import ABSENT, diff_documents
from opfs.core.position import join_pointer
from opfs.errors import Rejected
from opfs.plugins.mesh.expansion import node_of, normal, own_key, settle_mesh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.action import Document

PLUGIN = "mesh"


def plan_mesh(element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """The ordered actions from `current` (None: absent) to `desired` (None: delete).

    Raises Rejected for a new interface without a private key.
    """
    if desired is None:
        if current is None:
            return StateDiff(PLUGIN)
        lost = own_key(current) and "private_key" not in current
        text = f"leave the mesh {element}{', with a private key that is nowhere else' if lost else ''}"
        safety = Safety.DESTRUCTIVE if lost else Safety.DISRUPTIVE
        return StateDiff(PLUGIN, (Action(Kind.DELETE, element, "delete", text, safety),))
    if current is None:
        if "private_key" not in desired:
            raise Rejected(
                f"this host is not in the mesh {element} yet, and the document names no private key",
                hint='put `wg genkey` into a secret on every host and say "private_key": {"$secret": "NAME"}',
            )
        create = Action(Kind.CREATE, element, "create", f"create the WireGuard interface {element}")
        return StateDiff(PLUGIN, (create, _join(Kind.CREATE, element, desired)))
    name = node_of(desired, own_key(current))
    is_other_key = "private_key" in desired and desired["private_key"] != current.get("private_key")
    if name is None or is_other_key:
        return StateDiff(PLUGIN, (_join(Kind.MODIFY, element, desired),))
    now, wanted = settle_mesh(current, current["self"]), settle_mesh(desired, name)
    actions = list(plan_tunnel(PLUGIN, element, now, wanted).actions)
    if normal(current) != normal(desired):
        text = f"note the {len(desired['nodes'])} nodes of the mesh {element}"
        actions.append(Action(Kind.MODIFY, element, "note", text, keys=("nodes",), details={"document": dict(desired)}))
    return StateDiff(PLUGIN, tuple(actions))


def _join(kind: Kind, element: str, desired: Document) -> Action:
    text = f"join the mesh {element} of {len(desired['nodes'])} nodes as the one whose key this host has"
    safety = Safety.SAFE if kind is Kind.CREATE else Safety.DISRUPTIVE
    return Action(kind, element, "join", text, safety, tuple(desired), {"document": dict(desired)})


def compare_mesh(desired: Document | None, observed: Document | None) -> Iterator[Difference]:
    """In what this host's part of a mesh is not the desired one, by the mesh's own keys."""
    if desired is None or observed is None:
        if desired is not observed:
            yield Difference("", desired, observed)
        return
    key = own_key(observed)
    name = node_of(desired, key)
    if name is None:
        yield Difference("/nodes", "a node with this host's key", key or None)
        return
    differences = tuple(compare_tunnel(settle_mesh(desired, name), settle_mesh(observed, observed["self"])))
    for difference in differences:
        head, _, rest = difference.pointer[1:].partition("/")
        if head == "peers":
            pointer = f"/nodes/{rest}"
        elif head in ("addresses", "public_key"):
            pointer = join_pointer(["nodes", name, head])
        else:
            pointer = difference.pointer
        yield Difference(pointer, difference.desired, difference.observed)
    if not differences:
        # What no interface shows, and only the note of the mesh tells.
        for change in diff_documents(normal(observed), normal(desired)):
            old, new = (None if value is ABSENT else value for value in (change.old, change.new))
            yield Difference(change.pointer, new, old)
