"""Asking witnesses: rounds, rates, quorums, answers that are lost, witnesses that are gone, lie or dispute.

Time is trio's own and jumps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from commitpath import CommitPath, write
from witnesses import Witness, World, settle, sizes_asked

from opfs.core.note import Note, open_note, parse_checkpoint
from opfs.core.policy import parse_policy
from opfs.core.witness import AddCheckpoint, Answer
from opfs.errors import InvalidRequest, OpfsError
from opfs.testing.growinglog import GrowingLog
from opfs.witness.client import INTERVAL_S, MAX_INTERVAL_S, WitnessClient
from opfs.witness.published import PublishedLog

if TYPE_CHECKING:
    from opfs.witness.post import Endpoint


@pytest.fixture
async def world(nursery):
    world = World()
    nursery.start_soon(world.client.run)
    return world


async def test_all_witnesses_cosign_one_checkpoint_in_one_round(autojump_clock, world):
    await settle()
    assert [sizes_asked(witness) for witness in world.witnesses.values()] == [[(0, 3)]] * 3
    note, is_witnessed = world.log.cosigned[-1]
    assert is_witnessed
    assert [flag for _, flag in world.log.cosigned] == [False, False, True]
    opened = open_note(note.encode(), [*world.log.verifiers, *(w.signer.verifier for w in world.witnesses.values())])
    assert len(opened.verified) == 5
    assert (await world.log.newest()).text == note.text
    assert len((await world.log.newest()).signatures) == 5
    assert world.quorum_line == "quorum all: 3 blocks cosigned, 0 behind"
    assert world.line("a") == "a: 3 blocks cosigned, 0 behind at 2027-01-15T08:00:00Z"
    assert world.client.trouble is None


async def test_an_idle_log_asks_nobody_twice(autojump_clock, world):
    await settle(10_000)
    assert all(len(witness.requests) == 1 for witness in world.witnesses.values())


async def test_a_busy_log_asks_each_witness_once_in_ten_seconds_for_the_newest(autojump_clock, world):
    for _ in range(1000):
        await settle(0.1)
        world.grow()
    await settle(INTERVAL_S)
    for witness in world.witnesses.values():
        gaps = [later - earlier for earlier, later in zip(witness.asked_at, witness.asked_at[1:], strict=False)]
        assert len(gaps) >= 9
        assert min(gaps) >= INTERVAL_S
        assert sizes_asked(witness) == sizes_asked(world.a)
        assert sizes_asked(witness)[-1][1] == world.log.size
    assert world.quorum_line == f"quorum all: {world.log.size} blocks cosigned, 0 behind"


async def test_a_log_that_was_idle_is_cosigned_at_once(autojump_clock, world):
    await settle(1000)
    before = trio.current_time()
    world.grow()
    await settle(1)
    assert before <= world.a.asked_at[-1] <= before + 1


async def test_what_was_sent_has_the_log_s_signatures_only(autojump_clock, world):
    await settle()
    world.grow()
    await settle(INTERVAL_S)
    for request in world.b.requests:
        note = open_note(request.checkpoint, world.log.verifiers).note
        assert {line.name for line in note.signatures} == {world.log.origin}


async def test_an_answer_that_was_lost_is_made_up_for(autojump_clock, world):
    world.a.fault = world.a.loses_the_answer
    await settle()
    assert "cannot be reached" in world.line("a")
    assert world.a.last.size == 3
    world.a.fault = None
    world.grow()
    await settle(100)
    # it did not know that 3 were cosigned, was told so, and went on from there
    assert sizes_asked(world.a) == [(0, 3), (0, 4), (3, 4)]
    assert world.line("a").startswith("a: 4 blocks cosigned, 0 behind")
    assert ";" not in world.line("a")


async def test_a_lost_answer_to_what_still_is_the_newest_is_asked_for_again(autojump_clock, world):
    world.a.fault = world.a.loses_the_answer
    await settle()
    world.a.fault = None
    await settle(100)
    assert sizes_asked(world.a) == [(0, 3), (0, 3), (3, 3)]
    assert world.log.cosigned[-1][1]


@pytest.mark.parametrize("fault", ["is_gone", "hangs"])
async def test_a_witness_that_is_gone_holds_up_nobody_and_is_asked_less_and_less(autojump_clock, world, fault):
    world.a.fault = getattr(world.a, fault)
    for _ in range(200):
        await settle(50)
        world.grow()
    await settle(2 * INTERVAL_S)
    assert world.line("b").startswith(f"b: {world.log.size} blocks cosigned, 0 behind")
    assert world.line("a").startswith("a: nothing cosigned yet; https://a.example")
    assert world.client.trouble is None
    gaps = [later - earlier for earlier, later in zip(world.a.asked_at, world.a.asked_at[1:], strict=False)]
    assert min(gaps) >= INTERVAL_S
    assert gaps[-1] >= MAX_INTERVAL_S / 2
    assert len(world.b.requests) > 4 * len(world.a.requests)
    world.a.fault = None
    await settle(MAX_INTERVAL_S)
    assert world.line("a").startswith(f"a: {world.log.size} blocks cosigned, 0 behind")


async def test_a_quorum_needs_no_more_than_it_says(autojump_clock, nursery):
    world = World("group two 2 a b c\nquorum two")
    world.c.fault = world.c.is_gone
    nursery.start_soon(world.client.run)
    await settle()
    assert [flag for _, flag in world.log.cosigned] == [False, True]
    assert world.quorum_line == "quorum two: 3 blocks cosigned, 0 behind"


async def test_a_witness_that_is_late_joins_the_quorum_of_its_round(autojump_clock, world):
    async def late(body: bytes) -> Answer:
        await trio.sleep(9)
        return world.c.decide(body)

    world.c.fault = late
    await settle(1)
    world.grow()
    await settle(9)
    # the round was about 3 entries; that there is a fourth now changes nothing about that
    witnessed = await world.log.witnessed()
    assert parse_checkpoint(witnessed.text).size == 3
    assert len(witnessed.signatures) == 5


async def test_a_cosignature_joins_no_newer_checkpoint(autojump_clock, world):
    async def grow_meanwhile(body: bytes) -> Answer:
        world.grow()
        return world.a.decide(body)

    world.a.fault = grow_meanwhile
    await settle()
    assert {line.name for line in (await world.log.newest()).signatures} == {world.log.origin}
    assert parse_checkpoint((await world.log.witnessed()).text).size == 3


async def test_a_fork_is_refused_and_shown(autojump_clock, world):
    await settle()
    fork = world.log.fork_at(2, 5)
    world.log._leaves, world.log._note = fork._leaves, fork._note
    world.client.wake()
    await settle(INTERVAL_S)
    assert "it refuses the proof from 3 to 7" in world.line("a")
    assert world.client.trouble == "a, b, c cosigned another history of this log"
    assert world.a.last.size == 3


async def test_a_log_that_lost_entries_is_shown(autojump_clock, nursery):
    world = World()
    other = World(log=GrowingLog(size=9))
    world.a.decide(AddCheckpoint(0, (), other.log.note(9).encode()).encode())
    nursery.start_soon(world.client.run)
    await settle()
    assert "it cosigned 9 entries, more than the 3 that there are" in world.line("a")
    assert world.client.trouble == "a cosigned another history of this log"


async def test_a_witness_that_names_ever_other_sizes_is_asked_less_and_less(autojump_clock, world):
    world.a.fault = world.a.cannot_make_up_its_mind
    await settle(4 * 3600)
    assert len(world.a.requests) < 4 * 3600 / (MAX_INTERVAL_S / 2) + 10
    assert "other sizes than it is asked with" in world.line("a")


async def test_a_witness_s_words_are_shown_without_their_teeth(autojump_clock, world):
    async def shout(body: bytes) -> Answer:
        return Answer(503, "text/plain", b"\x1b[2Jaway\n" + b"x" * 5000)

    world.a.fault = shout
    await settle()
    assert "it answers 503: \\x1b[2Jaway" in world.line("a")
    assert len(world.line("a")) < 500


async def test_after_a_restart_nobody_is_asked_for_what_is_there(autojump_clock, nursery):
    world = World()
    first = trio.CancelScope()
    nursery.start_soon(run_in, first, world.client)
    await settle()
    first.cancel()
    await settle()
    world.client = world.make_client()
    nursery.start_soon(world.client.run)
    await settle(100)
    assert len(world.a.requests) == 1
    assert world.quorum_line == "quorum all: 3 blocks cosigned, 0 behind"
    world.grow()
    await settle()
    assert sizes_asked(world.a)[1:] == [(3, 4)]


async def run_in(scope: trio.CancelScope, client: WitnessClient) -> None:
    with scope:
        await client.run()


async def test_a_quorum_is_completed_after_a_restart(autojump_clock, nursery):
    world = World()
    world.c.fault = world.c.is_gone
    scope = trio.CancelScope()
    nursery.start_soon(run_in, scope, world.client)
    await settle()
    scope.cancel()
    world.c.fault = None
    world.client = world.make_client()
    nursery.start_soon(world.client.run)
    await settle()
    assert [len(witness.requests) for witness in world.witnesses.values()] == [1, 1, 2]
    assert len((await world.log.witnessed()).signatures) == 5


async def test_a_log_that_cannot_prove_is_a_problem_and_no_end(autojump_clock, world):
    async def damaged(old_size: int, new_size: int) -> list[bytes]:
        raise OpfsError("tile/0/000 is damaged")

    await settle()
    world.log.consistency_proof = damaged
    world.grow()
    await settle(INTERVAL_S)
    assert "tile/0/000 is damaged" in world.line("a")
    del world.log.consistency_proof
    await settle(100)
    assert ";" not in world.line("a")


async def test_a_bug_ends_the_asking_and_says_so(autojump_clock, world, caplog):
    async def broken() -> None:
        raise RuntimeError("bug")

    await settle()
    world.log.newest = broken
    world.client.wake()
    await settle(INTERVAL_S)
    assert world.client.report(3) == ["not asked any more: RuntimeError('bug')"]
    assert world.client.trouble == "not asked any more: RuntimeError('bug')"
    assert "not asked any more" in caplog.text


async def test_a_log_that_has_signed_nothing_yet_is_waited_for(autojump_clock, nursery):
    world = World()
    note = await world.log.newest()
    world.log._note = None
    nursery.start_soon(world.client.run)
    await settle(1000)
    assert world.a.requests == []
    assert world.quorum_line == "quorum all: nothing cosigned yet"
    world.log._note = note
    world.client.wake()
    await settle()
    assert world.quorum_line == "quorum all: 3 blocks cosigned, 0 behind"


# --- beside the commit path


async def test_commits_go_on_while_a_witness_does_not_answer(tmp_path):
    """The witness is asked and never answers; every commit is answered all the same, and nothing waits for it."""
    path = CommitPath(tmp_path)
    asked = trio.Event()

    async def never(endpoint: Endpoint, request_path: str, body: bytes) -> Answer:
        asked.set()
        return await trio.sleep_forever()

    async with path.started() as sequencer, trio.open_nursery() as nursery:
        client = WitnessClient(World().policy, PublishedLog(path.log), post=never)
        sequencer.on_block.append(lambda _: client.wake())
        nursery.start_soon(client.run)
        await asked.wait()
        for number in range(5):
            await sequencer.submit(write(f"m{number}", size=number))
        assert path.log.size == len(sequencer.blocks) == 6
        assert client.report(path.log.size)[1] == "a: nothing cosigned yet"
        nursery.cancel_scope.cancel()
    assert path.findings() == []


async def test_cosignatures_join_the_log_of_a_chain(tmp_path):
    path = CommitPath(tmp_path)
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        world = World(log=path.log)
        world.client = WitnessClient(world.policy, PublishedLog(path.log), post=world.post)
        kept = trio.Event()
        keep = path.log.keep_witnessed

        def tell(note: Note) -> None:
            keep(note)
            trio.from_thread.run_sync(kept.set)

        path.log.keep_witnessed = tell
        await sequencer.submit(write("m", size=1))
        nursery.start_soon(world.client.run)
        await kept.wait()
        opened = open_note(path.log.checkpoint(), [w.signer.verifier for w in world.witnesses.values()])
        assert len(opened.verified) == 3
        assert path.log.witnessed() == path.log.checkpoint()
        nursery.cancel_scope.cancel()


def test_a_policy_without_a_witness_to_ask_is_refused():
    log = GrowingLog()
    key = Witness("a", log).signer.verifier.vkey
    for text in ("quorum none", f"witness a {key}\nquorum a"):
        with pytest.raises(InvalidRequest, match="no witness with a URL"):
            WitnessClient(parse_policy(text), log)
    with pytest.raises(InvalidRequest, match="no http or https URL"):
        WitnessClient(parse_policy(f"witness a {key} ftp://a.example\nquorum a"), log)
