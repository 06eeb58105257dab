"""`opfs doctor`: is everything there that opfs needs, and how to get what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options

if TYPE_CHECKING:
    from opfs.cli.checks import Finding

_CHECK_WIDTH = 17
"""As wide as `plugin packagekit`: findings are printed as they come."""
_COLOURS = {"ok": "green", "note": "yellow", "WRONG": "bright_red"}


@click.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per check.")
def doctor(as_json: bool) -> None:
    """Check that everything opfs needs is there.

    A row per check, and below it how to put right what is wrong. Exit code 0 where nothing is.

    \b
    Example:
      sudo opfs doctor
    """
    from opfs.cli.checks import findings

    some_wrong = False
    for finding in findings(configuration()):
        some_wrong |= finding.state == "WRONG"
        _show(finding, as_json=as_json)
    click.get_current_context().exit(1 if some_wrong else 0)


def _show(finding: Finding, *, as_json: bool) -> None:
    from dataclasses import asdict

    from opfs.cli.output import echo, echo_json
    from opfs.core.printable import printable

    if as_json:
        echo_json(asdict(finding))
        return
    echo(f"{finding.state:5}  {finding.check:{_CHECK_WIDTH}}  {printable(finding.found)}", _COLOURS[finding.state])
    if finding.remedy:
        echo(f"{'':{_CHECK_WIDTH + 9}}{printable(finding.remedy)}")
