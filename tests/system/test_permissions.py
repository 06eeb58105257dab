"""What an unprivileged user may see and do: the modes of documents hold wherever they appear."""

import json
import os
import sys

import pytest
from serving import NOBODY

pytestmark = pytest.mark.needs("root", "btrfs", "fuse", "model")


@pytest.fixture(scope="module")
def secret(opfs):
    """An open document and one that is root's alone, before it is changed and after it is deleted."""
    opfs.mount.parent.chmod(0o755)
    opfs.put("noop/open", purpose="the public web server of the town")
    opfs.sh('umask 077; echo \'{"purpose": "the hidden web server of the bank"}\' > state/noop/secret.json')
    opfs.sh('umask 077; echo \'{"purpose": "the hidden mail server of the bank"}\' > state/noop/gone.json')
    opfs.sh("rm state/noop/gone.json")
    return opfs


def test_documents_are_as_private_in_blocks_as_in_state(secret):
    block = secret.blocks()[-1]
    for directory in ("state", "chain/HEAD/state", f"chain/{block}/state"):
        assert "town" in secret.as_nobody(f"cat {directory}/noop/open.json").stdout
        refused = secret.as_nobody(f"cat {directory}/noop/secret.json")
        assert (refused.stdout, refused.returncode) == ("", 1)
        assert "Permission denied" in refused.stderr
    for block in secret.blocks():
        assert "hidden" not in secret.as_nobody(f"cat chain/{block}/state/noop/*").stdout


def test_events_are_roots_and_headers_everybodys(secret):
    """An event's plan and message tell of documents that its reader may not open."""
    for block in secret.blocks():
        assert secret.as_nobody(f"cat chain/{block}/events.jsonl").stdout == ""
        assert json.loads(secret.as_nobody(f"cat chain/{block}/block.json").stdout)["height"] == int(block[:8])


def test_search_shows_what_its_reader_may_open(secret):
    for query in ("web server", "hidden", "mail server of the bank", "secret", "gone"):
        assert "bank" not in secret.as_nobody(f"cat 'search/similar/{query}'").stdout
        assert "bank" not in secret.as_nobody(f"cat 'search/similar/{query}.json'").stdout
    assert "town" in secret.as_nobody("cat 'search/similar/web server'").stdout
    seen_by_root = secret.sh("cat 'search/similar/server of the bank.json'").stdout
    assert {"secret", "gone"} <= {json.loads(line)["element"] for line in seen_by_root.splitlines()}


def test_commands_tell_a_user_of_what_he_may_read_and_of_nothing_else(secret):
    """The owner of `hushed` made it private after a public past: its delete is the last that others see of that."""
    secret.put("noop/hushed", purpose="the open past")
    secret.sh(
        'rm state/noop/hushed.json; umask 077; echo \'{"purpose": "the hidden present"}\' > state/noop/hushed.json'
    )
    opfs = f"{sys.executable} -m opfs --mount {secret.mount}"
    for command in ("log", "diff 0 HEAD", "diff --json 0 HEAD", "show HEAD", "log noop/secret"):
        told = secret.as_nobody(f"{opfs} {command}")
        assert (told.returncode, "hidden" in told.stdout) == (0, False), told.stderr
    assert "noop/open" in secret.as_nobody(f"{opfs} log").stdout
    assert "the town" in secret.as_nobody(f"{opfs} diff 0 HEAD noop/open").stdout
    assert "noop/secret" in secret.sh(f"{opfs} log").stdout
    refused = secret.as_nobody(f"{opfs} blame noop/hushed")
    assert (refused.returncode, "may not be read by you" in refused.stderr) == (2, True)


def test_nothing_is_written_without_permission(secret):
    before = secret.blocks()
    for script in (
        "echo '{}' > state/noop/open.json",
        "echo '{}' > state/noop/new.json",
        "echo draft > state/noop/draft",
        "rm -f state/noop/open.json",
        "mv state/noop/open.json state/noop/moved.json",
        "chmod 666 state/noop/open.json",
        "touch state/noop/open.json",
        "setfattr -n user.opfs.message -v x state/noop/open.json",
        "echo 'confirm delete noop/open' > ctl",
        "echo rebuild-index > ctl",
    ):
        done = secret.as_nobody(script)
        assert done.returncode != 0, script
        assert "denied" in done.stderr or "not permitted" in done.stderr, done.stderr
    assert secret.blocks() == before


def test_refusals_are_shown_to_those_who_were_refused(secret):
    secret.sh("echo '{\"purpose\":' > state/file/private.json; echo '[1]' > state/noop/private.json", check=False)
    secret.as_nobody("cat search/nearest/x; echo frobnicate > ctl")
    own = secret.as_nobody("cat errors").stdout
    assert "frobnicate" in own
    assert "private" not in own
    assert "private" in secret.sh("cat errors").stdout
    refused = secret.as_nobody("cat rejected/noop/private.json rejected/noop/private.reason")
    assert refused.stdout == ""
    assert refused.stderr.count("Permission denied") == 2


def test_a_user_may_own_a_document(secret):
    secret.sh(f"chown {NOBODY} state/noop/open.json")
    assert secret.as_nobody('echo \'{"purpose": "mine"}\' > state/noop/open.json').returncode == 0
    (event,) = secret.events()
    assert (event["actor"]["uid"], event["actor"]["user"]) == (NOBODY, "nobody")
    status = os.stat(secret.path("noop/open"))
    assert status.st_uid == NOBODY
    assert secret.as_nobody("echo 'confirm delete noop/open' > ctl").returncode == 0
    assert secret.as_nobody("rm state/noop/open.json").returncode != 0, "the directory is root's"


def test_the_pool_itself_is_closed(secret):
    assert "Permission denied" in secret.as_nobody(f"ls {secret.pool}").stderr
