"""Key rotation: an event names the new keys, signed for by the old ones; then the new ones sign.

A crash between the steps leaves keys staged; the next start goes on where it stopped. Trio thread; files are
written in worker threads.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from opfs.commit.chain import Outcome
from opfs.commit.change import Change, Request
from opfs.commit.step import Applied
from opfs.core.action import Safety
from opfs.core.actor import Actor
from opfs.core.canonical import hash_hex
from opfs.core.event import decode_events
from opfs.core.names import OWN_EVENTS, ElementId
from opfs.core.timestamp import parse_time
from opfs.errors import OpfsError
from opfs.tlog.keys import KeyPair

if TYPE_CHECKING:
    from opfs.daemon.parts import Parts

log = logging.getLogger(__name__)

KEYS = ElementId(OWN_EVENTS, "keys")
ROTATE = "rotate"


async def rotate_keys(parts: Parts, actor: Actor) -> None:
    """Bring the staged keys into use, or new ones where none are staged; raises OpfsError."""
    parts.failsafe.require_writable()
    pair = await trio.to_thread.run_sync(parts.keys.load_next)
    if pair is None:
        pair = KeyPair.generate(parts.log.origin)
        await trio.to_thread.run_sync(parts.keys.stage, pair)
    # After this line: keys that nobody knows of; a crash here leaves them staged; repaired by the next start, which
    # goes on.
    if not await _is_announced(parts, pair):
        plan = _announcement(pair)
        outcome = Outcome(KEYS, ROTATE, None, None, actor.to_json(), plan=plan, changes_document=False)
        await parts.sequencer.record(Request((Change(KEYS, None),), actor), Applied((outcome,)))
    # After this line: a block that the old keys signed names the new ones; a crash here leaves them staged; repaired
    # by the next start, which finds the event and does not make another.
    await trio.to_thread.run_sync(_activate, parts)
    log.info("the log is signed with new keys")


async def finish_rotation(parts: Parts) -> None:
    """At start: go on with a rotation that was begun, or was asked for while no daemon ran."""
    try:
        if await trio.to_thread.run_sync(parts.keys.load_next) is None:
            return
    except OpfsError as error:
        log.error("no rotation of keys is gone on with: %s", error)
        return
    if parts.failsafe.reason is not None:
        log.warning("the staged keys are not brought into use: %s", parts.failsafe.reason)
        return
    try:
        await rotate_keys(parts, Actor(uid=0, user="root", source="recovery"))
    except OpfsError as error:
        log.error("the staged keys are not in use yet, the next start goes on: %s", error)


def _activate(parts: Parts) -> None:
    header = parts.chain.header
    parts.log.use_keys(parts.keys.activate(), parse_time(header.time) if header else 0)


async def _is_announced(parts: Parts, pair: KeyPair) -> bool:
    tip = parts.chain.tips.get(KEYS)
    if tip is None:
        return False
    name = parts.chain.blocks[tip.height]
    events = decode_events(await trio.to_thread.run_sync(parts.store.read_events, name))
    return any(event.id == KEYS and event.plan == _announcement(pair) for event in events)


def _announcement(pair: KeyPair) -> tuple[dict[str, str], ...]:
    """The event's plan: the new verifier keys by name, id and the BLAKE3 of their text, which binds them."""
    return tuple(
        {
            "step": "sign-with",
            "summary": f"sign with {key.name}+{key.key_id.hex()} (BLAKE3 {hash_hex(key.vkey.encode())})",
            "safety": Safety.SAFE.value,
        }
        for key in pair.verifiers
    )
