"""Crash comments: where the source says what a crash leaves, and a way to crash exactly there.

A crash comment stands after the step that it is about and reads

    # After this line: <what is there now>; a crash here leaves <what>; repaired by <whom, and how>.

`find_comments` lists those of a source tree, `kill_at` makes the running process die by SIGKILL at one of them.
The process that dies is the caller's own: call it in a child.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

AREAS = ("archive", "commit", "btrfs", "tlog", "index", "daemon", "vfs")
"""Where a write passes, in this order in the documentation."""

MARKERS = (
    "<!-- crash comments: made by python -m opfs.testing.crashlines docs/reliability.md -->\n",
    "<!-- end of crash comments -->",
)

_BEGIN = re.compile(r"\s*# After this line: ")
_FORM = re.compile(r"After this line: (?P<there>.+?); a crash here (?P<leaves>[a-z]+ .+?); repaired by (?P<by>.+)\.\Z")


@dataclass(frozen=True, slots=True)
class CrashComment:
    """One comment: its file, its first and last line, and its three parts ("leaves an intent", "recovery, which …")."""

    module: Path
    first_line: int
    last_line: int
    there: str
    leaves: str
    repaired_by: str


def find_comments(root: Path) -> Iterator[CrashComment]:
    """Every crash comment below `root`; raises ValueError for one that does not have the form."""
    for module in sorted(root.rglob("*.py")):
        lines = module.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if _BEGIN.match(line) and not _is_inside_text(module, number):
                end = number
                while end < len(lines) and lines[end].lstrip().startswith("# "):
                    end += 1
                text = " ".join(part.strip().removeprefix("# ") for part in lines[number - 1 : end])
                found = _FORM.match(text)
                if found is None:
                    raise ValueError(f"{module}:{number}: a crash comment has another form: {text}")
                yield CrashComment(module, number, end, found["there"], found["leaves"], found["by"])


def table(root: Path, areas: Sequence[str] = AREAS) -> str:
    """The comments of some folders of `root` as a Markdown table, in the order of the folders."""
    lines = ["| module | after it there is | a crash there leaves | repaired by |", "|---|---|---|---|"]
    for area in areas:
        for comment in find_comments(root / area):
            leaves = comment.leaves.removeprefix("leaves ")
            lines.append(
                f"| `{comment.module.relative_to(root)}` | {comment.there} | {leaves} | {comment.repaired_by} |"
            )
    return "\n".join(lines) + "\n"


def with_table(page: str, root: Path) -> str:
    """The page with the table between its markers; raises ValueError where it has none."""
    before, begins, rest = page.partition(MARKERS[0])
    _, ends, after = rest.partition(MARKERS[1])
    if not begins or not ends:
        raise ValueError("the page has no place for the crash comments")
    return f"{before}{begins}\n{table(root)}\n{ends}{after}"


def _is_inside_text(module: Path, line: int) -> bool:
    """Whether the line is part of a string, as the example above is."""
    tree = ast.parse(module.read_text())
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and node.lineno <= line <= (node.end_lineno or 0)
        for node in ast.walk(tree)
    )


def kill_at(module: Path, line: int) -> None:
    """From now on this process dies when it has run the statement before the comment at `line`."""
    function, before = _statement_before(module, line)
    name = str(module)

    def on_call(frame: FrameType, event: str, argument: object) -> object:
        if frame.f_code.co_filename != name or frame.f_code.co_firstlineno != function:
            return None
        is_past = frame.f_lineno in before  # a coroutine that goes on within the statement

        def on_event(frame: FrameType, event: str, argument: object) -> object:
            nonlocal is_past
            inside = frame.f_lineno in before
            if is_past and (event == "return" or (event == "line" and not inside)) and not _is_waiting(frame, before):
                os.kill(os.getpid(), signal.SIGKILL)
            is_past = inside and (event != "exception" or _is_end_of_await(argument))
            return on_event

        return on_event

    threading.settrace(on_call)  # type: ignore[arg-type]
    sys.settrace(on_call)  # type: ignore[arg-type]


def _is_end_of_await(argument: object) -> bool:
    """Whether an exception is the one by which what was awaited hands over its result."""
    return isinstance(argument, tuple) and argument[0] is StopIteration


def _is_waiting(frame: FrameType, before: range) -> bool:
    """Whether a coroutine "returns" only to wait within the statement."""
    return bool(frame.f_code.co_flags & inspect.CO_COROUTINE) and frame.f_lineno in before


def _statement_before(module: Path, line: int) -> tuple[int, range]:
    """Where the function that the comment is in begins, and the lines of what comes before it in its block.

    That is a statement with all that is in it, or, for the first in a block, the line that opens the block.
    """
    text = module.read_text()
    indent = len(text.splitlines()[line - 1]) - len(text.splitlines()[line - 1].lstrip())
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    function = max((node for node in functions if node.lineno < line and node.col_offset < indent), key=_line_of)
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    following = min((node.lineno for node in statements if node.lineno > line), default=0)
    found = range(0)
    for block in _blocks(function):
        if block[0].col_offset != indent:
            continue
        earlier = [node for node in block if (node.end_lineno or 0) < line]
        if earlier and (earlier[-1].end_lineno or 0) >= found.stop:
            found = range(earlier[-1].lineno, (earlier[-1].end_lineno or 0) + 1)
        elif not earlier and block[0].lineno == following:
            opening = max(node.lineno for node in statements if node.lineno < line)
            return _first_line(function), range(opening, line)
    return _first_line(function), found


def _blocks(function: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(function):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                yield block


def _line_of(node: ast.stmt) -> int:
    return node.lineno


def _first_line(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """As a code object has it: that of the first decorator."""
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_table(target.read_text(), Path(__file__).parents[1]))
