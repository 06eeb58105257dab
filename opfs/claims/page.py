"""The page of the claims: each with its verdict, the figures and how to see them again; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.claims.claim import Bars, Finding, Lines, Table
    from opfs.claims.suite import Claim

_HEAD = """\
# The claims of the proposal, measured

Each claim of the original proposal, and what one machine shows of it: true, partly true, false, not measurable here, or
a placebo, which can be done and brings nothing. `sudo opfs bench claims` makes this page again, on your machine: it
takes root, makes a scratch pool in an image of its own, and removes it.
"""


def render(results: Sequence[tuple[Claim, Finding]], machine: Sequence[str], command: str, directory: str) -> str:
    """The page in Markdown; plots lie in `directory` beside it, by `plot_name`."""
    rows = [f"| [{claim.title}](#{claim.id}) | **{finding.verdict}** |" for claim, finding in results]
    summary = "\n".join(["| claim | here |", "|---|---|", *rows])
    told = "\n".join(f"- {line}" for line in machine)
    sections = "\n".join(_section(claim, finding, directory) for claim, finding in results)
    return f"{_HEAD}\n{summary}\n\nMeasured with `{command}`:\n\n{told}\n\n{sections}"


def plot_name(id: str, number: int) -> str:
    return f"{id}-{number + 1}.svg"


def plots_of(results: Sequence[tuple[Claim, Finding]]) -> Mapping[str, Lines | Bars]:
    """Every plot by its file name."""
    return {
        plot_name(claim.id, number): plot for claim, finding in results for number, plot in enumerate(finding.plots)
    }


def _section(claim: Claim, finding: Finding, directory: str) -> str:
    parts = [
        f'<a id="{claim.id}"></a>\n## {claim.title}',
        f"**{finding.verdict[0].upper()}{finding.verdict[1:]}.** {finding.said}",
        *(_table(table) for table in finding.tables),
        *(f"![{plot.title}]({directory}/{plot_name(claim.id, n)})" for n, plot in enumerate(finding.plots)),
        f"How: {claim.protocol} Again: `sudo opfs bench claims --only {claim.id}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [_row(table.head), "|" + "---|" * len(table.head), *(_row(row) for row in table.rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
