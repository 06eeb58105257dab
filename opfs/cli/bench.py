"""`opfs bench claims`: what the original proposal claims, measured on this machine, as a page with plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import Noun, configuration, place_options, require_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.claims.bench import Bench
    from opfs.claims.claim import Finding
    from opfs.claims.suite import Claim


@click.group(cls=Noun)
def bench() -> None:
    """Measure what this machine makes of opfs.

    \b
    Example:
      sudo opfs bench claims --quick
    """


@bench.command()
@place_options
@click.option("--quick", is_flag=True, help="Seconds instead of minutes; figures are rough.")
@click.option("--full", is_flag=True, help="Up to 10,000 snapshots: tens of minutes.")
@click.option("--only", "only", multiple=True, metavar="CLAIM", help="Only this one; may be repeated.")
@click.option("--list", "only_list", is_flag=True, help="List the claims and measure nothing.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page in Markdown, and its plots into the directory of that name beside it.",
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default="/var/tmp",
    show_default=True,
    metavar="DIR",
    help="Where the scratch image is made; it takes up to 4 GiB, 16 with --full.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per claim.")
def claims(
    quick: bool, full: bool, only: tuple[str, ...], only_list: bool, output: Path | None, scratch: Path, as_json: bool
) -> None:
    """Measure every claim of the original proposal: true, false, placebo, or not measurable here.

    Makes a scratch pool in an image of its own and removes it; no pool of yours is touched. The machine should have
    nothing else to do, or times are too long; the page says whether it had.

    \b
    Example:
      sudo opfs bench claims --quick
      sudo opfs bench claims --full --output claims.md
      sudo opfs bench claims --only page-cache --only numa
    """
    from opfs.claims.suite import CLAIMS
    from opfs.cli.output import echo_json, echo_rows
    from opfs.errors import InvalidRequest

    known = {claim.id: claim for claim in CLAIMS}
    if unknown := [name for name in only if name not in known]:
        raise InvalidRequest(f"there is no claim {unknown[0]!r}", hint=f"one of {', '.join(known)}")
    if quick and full:
        raise InvalidRequest("--quick and --full are opposites")
    if only_list:
        echo_rows([[(claim.id, "cyan"), (claim.title, None)] for claim in CLAIMS])
        return
    require_root("make a scratch pool")
    chosen = [claim for claim in CLAIMS if not only or claim.id in only]
    command = " ".join(["sudo opfs bench claims", *(["--quick"] if quick else []), *(["--full"] if full else [])])
    results, machine = _measure(chosen, quick=quick, full=full, scratch=scratch, is_quiet=as_json)
    if as_json:
        for claim, finding in results:
            echo_json({"claim": claim.id, "title": claim.title, "verdict": finding.verdict, "said": finding.said})
    if output is not None:
        _write_page(output, results, machine, command)


def _measure(
    chosen: Sequence[Claim], *, quick: bool, full: bool, scratch: Path, is_quiet: bool
) -> tuple[list[tuple[Claim, Finding]], Sequence[str]]:
    from opfs.claims.bench import Effort, describe_machine, open_bench
    from opfs.cli.output import Bar, echo

    effort = Effort.QUICK if quick else Effort.FULL if full else Effort.NORMAL
    results: list[tuple[Claim, Finding]] = []
    machine = describe_machine()
    remembered: dict[str, Any] = {}
    for number, claim in enumerate(chosen, 1):
        with Bar(f"{number} of {len(chosen)}, {claim.id}") as bar:
            with open_bench(effort, configuration().models, bar.show, scratch, remembered) as bench:
                finding = _tried(claim, bench)
            bar.clear()
        results.append((claim, finding))
        if not is_quiet:
            echo(f"{claim.title}: {finding.verdict.upper()}", bold=True)
            echo(f"  {finding.said}")
    return results, machine


def _tried(claim: Claim, bench: Bench) -> Finding:
    """What is measured; where that fails, why, and the other claims go on."""
    from opfs.claims.claim import unknown
    from opfs.errors import OpfsError

    try:
        return claim.measure(bench)
    except (OpfsError, OSError) as error:
        return unknown(f"Measuring it failed: {error}.")


def _write_page(output: Path, results: Sequence[tuple[Claim, Finding]], machine: Sequence[str], command: str) -> None:
    from opfs.claims.page import plots_of, render
    from opfs.claims.plot import draw

    directory = output.with_suffix("")
    directory.mkdir(exist_ok=True)
    for name, plot in plots_of(results).items():
        (directory / name).write_text(draw(plot), encoding="utf-8")
    output.write_text(render(results, machine, command, directory.name), encoding="utf-8")
    click.echo(f"{output} and {directory}/*.svg are written", err=True)
