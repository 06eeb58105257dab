"""`opfs bisect`: the first bad block, found with a probe command."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_blocks, complete_past_elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.cli.chain import Chain
    from opfs.config import Config
    from opfs.core.bisection import Verdict
    from opfs.core.names import BlockName

SKIP_CODE = 125
LAST_CODE = 127
UNCLEAR_EXIT_CODE = 1


@click.command()
@place_options
@click.option(
    "--element",
    metavar="PLUGIN/ELEMENT",
    help="Only blocks that changed this element.",
    shell_complete=complete_past_elements,
)
@click.argument("good", shell_complete=complete_blocks)
@click.argument("bad", shell_complete=complete_blocks)
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def bisect(element: str | None, good: str, bad: str, command: tuple[str, ...]) -> None:
    """Find the first bad block by running a command in some of the blocks between.

    GOOD and BAD are blocks, times or labels, as opfs show takes them. COMMAND runs in the directory of a block, which
    OPFS_BLOCK names too, and says by its exit code how that block is: 0 good, 1 to 124, 126 and 127 bad, 125 that it
    cannot be told; anything else, and a signal, ends the search. Each probe halves what is left. GOOD and BAD
    themselves are not probed.

    Exit code 0 where one block is found, 1 where several are left because none of them could be told.

    \b
    Example:
      opfs bisect 'a week ago' HEAD -- grep -q '"memory": 512' state/lxc/100.json
      opfs bisect --element net/br0 3 HEAD -- sh -c 'test $(jq .mtu state/net/br0.json) = 1500'
    """
    from opfs.cli.chain import open_chain
    from opfs.cli.output import echo, echo_rows, short_time
    from opfs.core.bisection import Bisection
    from opfs.core.printable import printable

    config = configuration()
    chain = open_chain(config)
    search = Bisection(_between(chain, config, chain.resolve(good), chain.resolve(bad), element))
    while (block := search.next()) is not None:
        verdict = _probe(chain, block, command)
        search.learn(verdict)
        left = len(search.suspects)
        colour = {"good": "green", "bad": "red"}.get(verdict.value)
        what = [(f"{verdict.value:4}", colour), (f"{left} left" if left > 1 else "", "bright_black")]
        echo_rows([[(str(block), "yellow"), (short_time(chain.header(block).time), "bright_black"), *what]])
    suspects = search.suspects
    probes = f"{search.probes} probe{'' if search.probes == 1 else 's'}"
    if len(suspects) > 1:
        echo(f"one of these {len(suspects)} blocks is the first bad one ({probes}; the others could not be told):")
        for block in suspects:
            echo(f"  {block}", "yellow")
        click.get_current_context().exit(UNCLEAR_EXIT_CODE)
    (first,) = suspects
    echo(printable(f"{first} is the first bad block ({probes})"), "red", bold=True)
    _tell(chain, first)


def _between(chain: Chain, config: Config, good: BlockName, bad: BlockName, element: str | None) -> Sequence[BlockName]:
    """The blocks of which one is the first bad one, lowest first; raises InvalidRequest where there is none."""
    from opfs.cli.versions import Versions
    from opfs.core.names import ElementId
    from opfs.errors import InvalidRequest

    if bad <= good:
        raise InvalidRequest(f"the bad block {bad} does not come after the good one {good}", hint="give GOOD first")
    found = [block for block in chain.blocks if good < block <= bad]
    if element is not None:
        id = ElementId.parse(element)
        changed = {version.block for version in Versions(config, id).all}
        found = [block for block in found if block in changed]
        if not found:
            raise InvalidRequest(
                f"no block after {good} and up to {bad} changed {id}", hint=f"opfs history {id} lists those that did"
            )
    return found


def _probe(chain: Chain, block: BlockName, command: Sequence[str]) -> Verdict:
    """Run the command in the block; raises OpfsError where its end says nothing."""
    from opfs.core.bisection import Verdict
    from opfs.errors import InvalidRequest, OpfsError

    directory = chain.path(block)
    try:
        code = subprocess.run(
            command, cwd=directory, env={**os.environ, "OPFS_BLOCK": str(directory)}, check=False
        ).returncode
    except OSError as error:
        raise InvalidRequest(f"the command {command[0]!r} cannot be run: {error.strerror}") from error
    if code < 0:
        raise OpfsError(f"the probe of block {block} was ended by signal {-code}", hint="nothing was concluded from it")
    if code > LAST_CODE:
        raise OpfsError(
            f"the probe of block {block} ended with {code}",
            hint="0 is good, 1 to 127 bad, 125 neither; more is an error",
        )
    return Verdict.GOOD if code == 0 else Verdict.SKIP if code == SKIP_CODE else Verdict.BAD


def _tell(chain: Chain, block: BlockName) -> None:
    """The block's time, and its events where the caller may read them."""
    from opfs.cli.log import event_row
    from opfs.cli.output import echo_rows, short_time
    from opfs.errors import AccessDenied

    try:
        echo_rows([event_row(block, event)[1:] for event in chain.events_seen(block)])
    except AccessDenied:
        echo_rows([[(short_time(chain.header(block).time), "bright_black"), ("what was done, root may read", None)]])
