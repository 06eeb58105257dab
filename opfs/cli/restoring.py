"""Bringing a host to a restore state: read, check, compare, plan, ask, do, look again.

The daemon judges and acts; here is what only the file tells: where a fault stands in it, what is new in it, and what
it asks of people. The documents travel through root's own /plan, so that what is carried out is what was shown.
Synchronous; for one command.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import click

from opfs.cli.files import load_file
from opfs.cli.output import Bar, echo, echo_json
from opfs.cli.plan import show_steps
from opfs.cli.planfile import Step
from opfs.cli.restore_settings import models_to_fetch, toml_to_add
from opfs.cli.schemas import load_registry
from opfs.commit.validation import Validator
from opfs.core.action import Safety
from opfs.core.names import BlockName, ElementId
from opfs.core.planview import PlanView
from opfs.core.position import join_pointer, locate, split_pointer
from opfs.core.printable import printable
from opfs.core.proposal_state import convert_restore_state
from opfs.core.restore_state import (
    MAX_STATE_BYTES,
    OF_ROOT,
    Access,
    RestoreState,
    document_bytes,
    is_own_format,
    parse_fields,
    read_state,
)
from opfs.errors import InvalidRequest, NotFound, OpfsError, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opfs.cli.tree import MountedTree
    from opfs.config import Config

DIFFERENT_EXIT_CODE = 1
_AS_ASKED = ("committed", "observed")
_TOLD = 20
"""Faults told of one file; each costs a pass over it."""


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of the command."""

    only_plan: bool = False
    yes: bool = False
    exact: bool = False
    skip_refused: bool = False
    as_json: bool = False


@dataclass(slots=True)
class _Work:
    """What is to be done: documents to write and None to delete, whose they are, whose documents change hands only.

    `same` counts the elements that are as the file says, `others` those that it does not have.
    """

    wanted: dict[ElementId, bytes | None] = field(default_factory=dict)
    access: dict[ElementId, Access] = field(default_factory=dict)
    handed: dict[ElementId, Access] = field(default_factory=dict)
    same: int = 0
    others: list[ElementId] = field(default_factory=list)


def restore(tree: MountedTree, config: Config, file: str, options: Options) -> int:
    """Bring the host to the state in `file`; returns the exit code. Raises OpfsError, nothing having been done."""
    content = load_file(file, MAX_STATE_BYTES)
    state = _checked(_read(content, file), content, config, options)
    work = _compare(tree, state, options)
    _tell(work, state, config, options)
    if work.wanted and not _carry_out(tree, state, work, options):
        return 0
    if options.only_plan:
        return 0
    for id, access in work.handed.items():
        tree.hand_over(id, access.mode, access.uid, access.gid)
    return _verify(tree, state)


# --- the file -----------------------------------------------------------------------------------------------


def _read(content: bytes, file: str) -> RestoreState:
    try:
        fields = parse_fields(content)
        if is_own_format(fields):
            return read_state(fields, content)
        converted = convert_restore_state(fields)
    except OpfsError as error:
        raise type(error)(f"{file}{_spot(error)}: {error.reason}", hint=error.hint) from None
    for remark in converted.remarks:
        click.echo(printable(f"{remark.pointer or '/'}  {remark.said}"), err=True)
    return RestoreState(converted.documents)


def _checked(state: RestoreState, content: bytes, config: Config, options: Options) -> RestoreState:
    """The state with what this host's plugins accept; raises InvalidRequest where that is not all."""
    validator = Validator(load_registry(config))
    accepted = dict(state.documents)
    faults = 0
    for id, document in state.documents.items():
        try:
            validator.check(id, document_bytes(document))
        except OpfsError as error:
            faults += 1
            del accepted[id]
            if faults <= _TOLD:
                left = "left out: " if options.skip_refused else ""
                spot = _spot(_moved(error, state.where.get(id), content))
                click.echo(printable(f"opfs: {left}{id}{spot}: {error}"), err=True)
    if faults > _TOLD:
        click.echo(f"opfs: and {faults - _TOLD} more", err=True)
    if faults and not options.skip_refused:
        raise InvalidRequest(
            f"{faults} of {len(state.documents)} documents are refused, and nothing was done",
            hint="put the file right, or leave them out: --skip-refused",
        )
    return replace(state, documents=accepted)


def _moved(error: OpfsError, where: str | None, content: bytes) -> OpfsError:
    """The error with its place in the whole file, as far as the file has one."""
    if where is not None:
        below = split_pointer(error.location.pointer) if error.location else ()
        error.location = locate(content, join_pointer((*split_pointer(where), *below)))
    else:
        error.location = None
    return error


def _spot(error: OpfsError) -> str:
    at = error.location
    return "" if at is None else f", line {at.line}, column {at.column}" + (f" ({at.pointer})" if at.pointer else "")


# --- what is to be done -------------------------------------------------------------------------------------


def _compare(tree: MountedTree, state: RestoreState, options: Options) -> _Work:
    """Documents are compared as JSON, keys in their order: how they are laid out is nobody's wish."""
    work = _Work()
    there = {ElementId(plugin, element) for plugin in tree.plugins() for element in tree.elements(plugin)}
    for id, document in sorted(state.documents.items()):
        access = state.access.get(id, OF_ROOT)
        if id not in there or not _is_same(tree.read(f"state/{id.path}"), document_bytes(document)):
            work.wanted[id] = document_bytes(document)
            work.access[id] = access
        elif tree.access(id) != (access.mode, access.uid, access.gid):
            work.handed[id] = access
        else:
            work.same += 1
    work.others = sorted(there.difference(state.documents))
    if options.exact:
        work.wanted |= dict.fromkeys(work.others)
    return work


def _is_same(found: bytes, wanted: bytes) -> bool:
    try:
        return document_bytes(json.loads(found)) == wanted
    except ValueError:
        return False


def _tell(work: _Work, state: RestoreState, config: Config, options: Options) -> None:
    """What is left alone, and what people have to do themselves."""
    say = _to_stderr if options.as_json else click.echo
    if work.same:
        say(f"{_count(work.same)} as the file says already")
    if work.handed:
        say(f"{_count(len(work.handed))} another owner or mode")
    if work.others and not options.exact:
        shown = ", ".join(map(str, work.others[:5])) + (", …" if len(work.others) > 5 else "")
        say(f"kept, though the file does not have them: {shown} (--exact deletes them)")
    if lines := toml_to_add(state, config):
        say("settings are as they were; to have those of the file, put into opfs.toml:")
        for line in lines:
            say(printable(f"  {line}"))
    for name in models_to_fetch(state, config):
        say(printable(f"the model {name} is not here: opfs model fetch"))


def _count(number: int) -> str:
    return f"{number} element{' is' if number == 1 else 's are'}" if number else ""


def _to_stderr(text: str) -> None:
    click.echo(text, err=True)


# --- doing it -----------------------------------------------------------------------------------------------


def _carry_out(tree: MountedTree, state: RestoreState, work: _Work, options: Options) -> bool:
    """Plan, show, ask and do; False where only the plan was asked for."""
    plugins = sorted({id.plugin for id in work.wanted})
    words = " ".join([*([f"--source={state.source}"] if state.source else []), *plugins])
    try:
        with Bar("planning") as bar:
            for done, (id, content) in enumerate(work.wanted.items()):
                bar.show(done, len(work.wanted))
                tree.keep_plan(id, content)
                if (access := work.access.get(id, OF_ROOT)) != OF_ROOT:
                    tree.hand_over(id, access.mode, access.uid, access.gid, planned=True)
        head, *lines = tree.ask(f"restore-state --plan {words}")
        steps = [Step(work.wanted.get(view.id), view) for view in map(PlanView.from_json, lines)]
        _check_alone(steps, work)
        if options.as_json:
            for step in steps:
                echo_json(step.view.to_json())
        else:
            show_steps(steps)
        for told in head["missing"]:
            click.echo(printable(f"opfs: a secret is missing: {told}"), err=True)
        if options.only_plan:
            return False
        if head["missing"]:
            raise Rejected(f"{len(head['missing'])} secrets are missing, and nothing was done")
        if not options.yes:
            click.confirm("Bring this host to it?", abort=True)
        for step in steps:
            if step.view.safety is Safety.DESTRUCTIVE:
                tree.command(f"confirm {'delete' if step.content is None else 'update'} {step.view.id}")
        made = BlockName.parse(tree.tell(f"restore-state --expect={head['digest']} {words}").strip())
    finally:
        for id, content in work.wanted.items():
            tree.forget_plan(id, content)
    of = f" of {state.source}" if state.source else ""
    echo(printable(f"block {made} is the restore state{of}: {len(steps)} elements"), "green")
    return True


def _check_alone(steps: list[Step], work: _Work) -> None:
    """Whatever root has planned for these plugins would be carried out: only what the file asks for may be there."""
    others = [str(step.view.id) for step in steps if step.view.id not in work.wanted]
    if others:
        raise Rejected(
            f"there are other plans of root's: {', '.join(others[:5])}", hint="carry them out, or rm plan/*/* first"
        )


def _verify(tree: MountedTree, state: RestoreState) -> int:
    """Look at the host once more; returns the exit code."""
    wrong = dict(_differences(tree, state.documents))
    for id, told in sorted(wrong.items()):
        click.echo(printable(f"opfs: {id}: {told}"), err=True)
    fine = len(state.documents) - len(wrong)
    echo(f"{fine} of {len(state.documents)} elements are as the file says", "yellow" if wrong else "green")
    return DIFFERENT_EXIT_CODE if wrong else 0


def _differences(tree: MountedTree, documents: Mapping[ElementId, object]) -> Iterator[tuple[ElementId, str]]:
    """The elements that are not as their documents say, and in what."""
    for plugin in sorted({id.plugin for id in documents}):
        try:
            reports = [json.loads(line) for line in tree.read(f"live/{plugin}/.drift").splitlines()]
        except OpfsError as error:
            yield from ((id, f"cannot be looked at: {error}") for id in documents if id.plugin == plugin)
            continue
        for report in reports:
            if (id := ElementId.parse(report["element"])) in documents:
                keys = ", ".join(change["pointer"] or "/" for change in report["changes"][:5])
                yield id, "is not there" if report["is_gone"] else f"differs in {keys}"
    for id in documents:
        status = _status(tree, id)
        if not status.startswith(_AS_ASKED):
            yield id, status


def _status(tree: MountedTree, id: ElementId) -> str:
    with suppress(NotFound):
        return tree.status_of(id)
    return "has no document"
