"""`opfs restore-state`: what a fresh host needs to become this one, written to a file, and a host brought to it."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from opfs.cli.command import Noun, configuration, place_options, require_root
from opfs.cli.completions import complete_blocks

if TYPE_CHECKING:
    from opfs.cli.chain import Chain
    from opfs.config import Config
    from opfs.core.names import BlockName
    from opfs.core.restore_state import RestoreState


@click.group("restore-state", cls=Noun)
def restore_state() -> None:
    """Write down what a fresh host needs to become this one, and bring a host to it.

    The file holds the documents, whose they are, the names of secrets and models, and settings. It holds no value of
    a secret, nothing of the chain but which block it is of, no cache.

    \b
    Example:
      sudo opfs restore-state export host.json
      sudo opfs restore-state apply --plan host.json
    """


@restore_state.command("export")
@place_options
@click.option(
    "--at", "when", metavar="BLOCK|TIME|LABEL", default="HEAD", help="Of this block.", shell_complete=complete_blocks
)
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(allow_dash=True))
def export(when: str, file: str | None) -> None:
    """Write the restore state of a block, HEAD unless told otherwise.

    Works on a pool whose daemon is down, too. The same block gives the same bytes; only owners and modes of HEAD's
    documents are those of now. A document that was erased is left
    out, and named. What is in FILE is readable by its owner alone; without FILE it goes to standard output.

    \b
    Example:
      sudo opfs restore-state export host.json
      sudo opfs restore-state export --at before-upgrade | jq .network_interfaces
    """
    from opfs.cli.chain import open_chain
    from opfs.cli.tree import commit_pending
    from opfs.core.restore_state import encode_state
    from opfs.errors import InvalidRequest

    config = configuration()
    if when == "HEAD":
        commit_pending(config)
    chain = open_chain(config)
    block = chain.resolve(when)
    header = chain.header(block)
    state = _state_of(chain, block, config)
    data = encode_state(state, header)
    if file is None or file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as written:
            written.write(data)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"{len(state.documents)} elements of block {block} are in {file}", err=True)


def _state_of(chain: Chain, block: BlockName, config: Config) -> RestoreState:
    from opfs.cli.restore_settings import retention_of, settings_of
    from opfs.core.document import parse_document
    from opfs.core.printable import printable
    from opfs.core.restore_state import OF_ROOT, Access, RestoreState
    from opfs.embedding.weights import MINILM, WEIGHTS
    from opfs.fuse.mountpoint import is_answering, is_mounted

    documents, access = {}, {}
    current = (
        config.mount / "state"
        if is_mounted(config.mount) and is_answering(config.mount)
        else config.pool / "@state" / "state"
    )
    for stored in chain.documents(block):
        if stored.erasure is not None:
            click.echo(printable(f"opfs: left out: {stored.id} was erased"), err=True)
            continue
        documents[stored.id] = parse_document(stored.content)
        whose = Access(stored.attributes.mode, stored.attributes.uid, stored.attributes.gid)
        if block == chain.head:
            # a chmod is no block: the next one carries it, and until then HEAD has the old mode
            with suppress(FileNotFoundError):
                now = os.stat(current / stored.id.path, follow_symlinks=False)
                whose = Access(stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid)
        if whose != OF_ROOT:
            access[stored.id] = whose
    model = {"name": MINILM.name, "dimensions": MINILM.dimensions, "sha256": MINILM.file(WEIGHTS).sha256}
    return RestoreState(documents, access, retention_of(config), settings_of(config), (model,))


@restore_state.command("apply")
@place_options
@click.option("-p", "--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, also where something is destroyed.")
@click.option("--exact", is_flag=True, help="Delete the elements that the file does not have.")
@click.option("--skip-refused", is_flag=True, help="Go on without what is not possible on this host.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, one object per element.")
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
def apply(only_plan: bool, yes: bool, exact: bool, skip_refused: bool, as_json: bool, file: str) -> None:
    """Bring this host to a restore state.

    Reads and checks everything first: each fault is told with its JSON pointer, line and column in FILE, each secret
    that is missing with the place where it belongs, and nothing is done. Then shows the plan, in the order of needs,
    and asks. Then exactly that is done, as one change: it is one new block, which names the block that the file is
    of, or everything is undone. At the end the host is looked at again.

    What is as it should be is left alone; so is what the file does not have, unless --exact deletes it. Settings
    are not touched: what opfs.toml would have to say is printed. A system_restore_state.json of operation-dbus is
    read, too; each of its keys that has no equivalent is named.

    Exit code 1 where something is not as the file says in the end, 2 where the file is at fault, 3 where a secret
    is missing or something moved since the plan was shown, 4 where the host refused.

    \b
    Example:
      sudo opfs restore-state apply --plan host.json
      sudo opfs restore-state apply host.json
    """
    from opfs.cli.restoring import Options, restore
    from opfs.cli.tree import mounted_tree

    require_root("restore a host's state")
    config = configuration()
    options = Options(only_plan=only_plan, yes=yes, exact=exact, skip_refused=skip_refused, as_json=as_json)
    click.get_current_context().exit(restore(mounted_tree(config), config, file, options))


@restore_state.command("schema")
@place_options
def schema() -> None:
    """Print the JSON Schema of the file.

    What a document in it may say is in the schema of its plugin: opfs schema PLUGIN.

    \b
    Example:
      opfs restore-state schema > restore-state.schema.json
    """
    import json

    from opfs.core.restore_schema import RESTORE_SCHEMA

    click.echo(json.dumps(RESTORE_SCHEMA, indent=2))
