"""Run the contract suite on a plugin without a test framework: what `opfs plugin check` does.

A case is JSON, or a function of a Python module. Each check gets a case of its own on the plugin's real backend; the
element must not be there before, so that nothing which somebody needs is ever touched. Runs under trio.
"""

from __future__ import annotations

import inspect
import json
import logging
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import trio

from opfs.errors import InvalidRequest, OpfsError, Rejected
from opfs.testing.contracts.failures import MATRIX, check_failures
from opfs.testing.contracts.plugin import CHECKS, PluginCase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from opfs.ports import Plugin

    CaseMaker = Callable[[], AbstractAsyncContextManager[PluginCase]]

_KEYS = ("element", "documents", "refused", "failing", "protected")
_SAID = 2000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one check; `said` is empty where it passed."""

    name: str
    said: str
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.said


def case_from_json(plugin: Plugin, text: bytes) -> CaseMaker:
    """Cases from a JSON object with `element`, `documents` and perhaps `refused`, `failing`, `protected`.

    Raises InvalidRequest for anything else.
    """
    hint = 'e.g. {"element": "opfs-check", "documents": [{…}, {…}], "refused": [{…}]}'
    try:
        fields: Mapping[str, Any] = json.loads(text)
        unknown = set(fields) - set(_KEYS)
        if unknown:
            raise InvalidRequest(f"a case has no key {sorted(unknown)[0]!r}", hint=f"its keys are {', '.join(_KEYS)}")
        element, documents = fields["element"], fields["documents"]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest(f"this is no case for a check: {error!r}", hint=hint) from None
    if not isinstance(element, str) or not isinstance(documents, list) or len(documents) < 2:
        raise InvalidRequest("a case needs an element and two documents at least, neighbours unlike", hint=hint)

    @asynccontextmanager
    async def make() -> AsyncIterator[PluginCase]:
        yield PluginCase(
            plugin,
            element,
            documents,
            refused=fields.get("refused", ()),
            failing=fields.get("failing"),
            protected=fields.get("protected"),
        )

    return make


def case_from_module(plugin: Plugin, spec: str) -> CaseMaker:
    """Cases from `package.module:function`, which is given the plugin.

    The function returns a PluginCase, is async and does, or is an async context manager that gives one and cleans up
    afterwards. Raises InvalidRequest.
    """
    module_name, _, name = spec.partition(":")
    try:
        function = getattr(import_module(module_name), name or "make_case")
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"{spec} does not name a function: {error}", hint="package.module:function") from error

    @asynccontextmanager
    async def make() -> AsyncIterator[PluginCase]:
        made = function(plugin)
        if isinstance(made, AbstractAsyncContextManager):
            async with made as case:
                yield case
        else:
            yield await made if inspect.isawaitable(made) else made

    return make


async def run_checks(
    make_case: CaseMaker, *, with_failures: bool = True, hang_limit_s: float = 5.0
) -> AsyncIterator[Verdict]:
    """Run every check of the suite and, unless told otherwise, every row of the failure matrix.

    A backend that hangs is given up after `hang_limit_s`. Raises Rejected, before anything is done, where the element
    is on the host already.
    """
    async with make_case() as case:
        await _check_free(case)
    for name, check in _checks(with_failures=with_failures, hang_limit_s=hang_limit_s):
        started = time.monotonic()
        said = ""
        async with make_case() as case:
            try:
                await check(case)
            except Exception as error:
                said = _in_words(error)
                await _clean(case)
        yield Verdict(name, said[:_SAID], time.monotonic() - started)


async def _check_free(case: PluginCase) -> None:
    reason = case.plugin.why_unavailable()
    if reason:
        raise Rejected(f"the plugin {case.plugin.name} cannot work on this host: {reason}")
    if await case.observed(case.documents[0]) is not None:
        raise Rejected(
            f"{case.plugin.name}/{case.element} is on this host already",
            hint="the checks make, change and delete it: name one that is not there",
        )


def _checks(
    *, with_failures: bool, hang_limit_s: float
) -> Iterator[tuple[str, Callable[[PluginCase], Awaitable[object]]]]:
    for check in CHECKS:
        yield check.__name__.removeprefix("check_").replace("_", " "), check
    if with_failures:
        for transition, failing in MATRIX:

            async def check_row(case: PluginCase, row: Any = (transition, failing)) -> None:
                await check_failures(case, *row, hang_limit_s=hang_limit_s)

            yield f"{transition.value}: the backend {failing.value.replace('-', ' ')}", check_row


def _in_words(error: BaseException) -> str:
    """What went wrong at the bottom of it: a failure in a task of a nursery arrives in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    told = str(error) or type(error).__name__
    return told if isinstance(error, AssertionError | OpfsError) else f"{type(error).__name__}: {told}"


async def _clean(case: PluginCase) -> None:
    """After a failed check: remove what it left, as far as the plugin can."""
    with suppress(Exception), trio.move_on_after(case.plugin.apply_timeout_s):
        await case.become(None)


def quiet() -> None:
    """Keep the log of the commit path out of the report: the failures in it are the point of the matrix."""
    logging.getLogger("opfs").addHandler(logging.NullHandler())
