"""/search through the kernel: filters, links to hits, time travel, other users; and what a refusal resembles."""

from __future__ import annotations

import errno
import json
import os
import time

import pytest
from serving import NOBODY, serve

pytestmark = pytest.mark.needs("root", "btrfs", "fuse", "model")


def hits(opfs, path):
    return [json.loads(line) for line in (opfs.mount / "search" / path).read_text().splitlines()]


def elements(opfs, path):
    return [hit["element"] for hit in hits(opfs, path)]


def refusal(opfs, path):
    """The errno with which a query is refused, and what /errors says of it."""
    try:
        (opfs.mount / "search" / path).read_bytes()
    except OSError as error:
        return error.errno, (opfs.mount / "errors").read_text().split("\n\n")[-1]
    return 0, ""


@pytest.fixture(scope="module")
def past(opfs):
    """Six blocks: two elements come, one is changed twice, one goes; a label; a document that is root's alone."""
    opfs.mount.parent.chmod(0o755)
    opfs.put("noop/web", purpose="public web server", memory=256)
    opfs.put("noop/mail", purpose="relay for electronic mail")
    opfs.put("noop/web", purpose="public web server", memory=512)
    opfs.opfs("label", "before-upgrade")
    opfs.put("noop/web", purpose="public web server", memory=1024)
    opfs.sh("rm state/noop/mail.json")
    opfs.sh('umask 077; echo \'{"purpose": "hidden web server of the bank"}\' > state/noop/vault.json')
    return opfs


def test_every_change_is_listed_newest_first_and_narrowed_by_directories(past):
    every = hits(past, "changes.json")
    assert [hit["seq"] for hit in every] == sorted((hit["seq"] for hit in every), reverse=True)
    assert every[0]["element"] == "vault"
    assert elements(past, "op:delete/changes.json") == ["mail"]
    assert elements(past, "element:noop:mail/op:create/op:delete/changes.json") == ["mail", "mail"]
    assert elements(past, "op:delete/by:root/plugin:noop/changes.json") == ["mail"]
    assert elements(past, "op:delete/by:nobody/changes.json") == []
    assert elements(past, "plugin:nowhere/changes.json") == []
    assert len(hits(past, "limit:2/changes.json")) == 2


def test_words_are_found_in_any_of_three_ways(past):
    assert set(elements(past, "text/relay.json")) == {"mail"}
    assert elements(past, "op:create/similar/e-mail server.json")[0] == "mail"
    assert elements(past, "op:create/hybrid/a relay for e-mail.json")[0] == "mail"
    assert "noop/mail" in (past.mount / "search/text/relay").read_text().splitlines()[0]


def test_time_travel_shows_what_was_known_then(past):
    by_height = {hit["block"]: hit for hit in hits(past, "changes.json")}
    assert max(hit["block"] for hit in hits(past, "at:2/changes.json")) == 2
    assert [hit["block"] for hit in hits(past, "element:noop:web/at:before-upgrade/changes.json")] == [3, 1]
    assert "vault" in elements(past, "similar/bank.json")
    assert "vault" not in elements(past, "at:3/similar/bank.json")
    third = by_height[3]["time"]
    assert [hit["block"] for hit in hits(past, f"at:{third}/element:noop:web/changes.json")] == [3, 1]
    assert min(hit["block"] for hit in hits(past, f"since:{third}/changes.json")) == 3
    assert max(hit["block"] for hit in hits(past, f"until:{third}/changes.json")) == 3
    assert {hit["block"] for hit in hits(past, "since:2/until:3/changes.json")} == {2, 3}
    assert hits(past, "since:1_hour_ago/changes.json") == hits(past, "changes.json")
    assert hits(past, "until:2020-01-01/changes.json") == []
    assert refusal(past, "at:2020-01-01/changes")[0] == errno.ENOENT


@pytest.mark.parametrize(
    ("path", "number", "said"),
    [
        ("plugn:noop/changes", errno.EINVAL, "did you mean plugin:noop?"),
        ("op:delet/changes", errno.EINVAL, "did you mean op:delete?"),
        ("since:2026-13-01/changes", errno.EINVAL, "since:2026-11-01"),
        ("similiar/x", errno.EINVAL, "did you mean similar?"),
        ("at:before-upgrad/changes", errno.EINVAL, "did you mean before-upgrade?"),
        ("at:999999/changes", errno.ENOENT, "there is no block 999999"),
        ("limit:0/changes", errno.EINVAL, "1 to 1000"),
        ("similar/" + "x" * 300, errno.ENAMETOOLONG, "at most 255"),
        ("/".join(["op:delete"] * 33 + ["changes"]), errno.EINVAL, "at most 32 filters"),
    ],
)
def test_a_bad_query_is_answered_with_what_would_be_right(past, path, number, said):
    found, told = refusal(past, path)
    assert found == number
    assert said in told


def test_results_are_links_for_ls_cat_grep_and_diff(past):
    listing = past.sh("ls 'search/element:noop:web/results/memory of the public web server'").stdout.split()
    assert len(listing) == 3
    assert {name[3:] for name in listing} == {f"0000000{n}-noop-web.json" for n in (1, 3, 5)}
    assert [name[:2] for name in listing] == ["01", "02", "03"]
    there = "cd 'search/element:noop:web/results/memory of the public web server'"
    assert past.sh(f"{there}; cat *-00000003-*").stdout == past.sh("cat chain/00000003-*/state/noop/web.json").stdout
    assert past.sh(f"{there}; grep -l 1024 *").stdout.endswith("-00000005-noop-web.json\n")
    differing = past.sh(f"{there}; diff *-00000001-* *-00000003-*", check=False)
    assert differing.returncode == 1
    assert '"memory": 512' in differing.stdout
    target = past.sh(f"{there}; readlink -f *-00000005-*").stdout
    assert target.startswith(f"{past.mount}/chain/00000005-")


def test_a_deleted_document_is_found_in_the_block_before(past):
    (name,) = past.sh("ls search/op:delete/results/mail").stdout.split()
    assert name.endswith("-noop-mail.deleted.json")
    assert json.loads(past.sh(f"cat search/op:delete/results/mail/{name}").stdout)["purpose"].startswith("relay")


def test_results_follow_every_change(past):
    query = "plugin:noop/op:create/results/lighthouse keeper"
    before = os.listdir(past.mount / "search" / query)
    past.put("noop/lighthouse", purpose="keeper of the lighthouse")
    after = sorted(os.listdir(past.mount / "search" / query))
    assert len(after) == len(before) + 1
    assert after[0].endswith("-noop-lighthouse.json")
    old = sorted(os.listdir(past.mount / "search" / "at:before-upgrade" / query))
    assert not any("lighthouse" in name for name in old)


def test_listings_name_what_there_is_and_a_walk_ends(past):
    listing = past.sh("ls search").stdout.split()
    assert {"similar", "text", "hybrid", "results", "changes", "changes.json"} <= set(listing)
    assert {"plugin:noop", "element:noop:web", "op:delete", "by:root"} <= set(listing)
    deeper = past.sh("ls search/plugin:noop").stdout.split()
    assert "element:noop:web" in deeper
    assert not any(name.startswith("plugin:") for name in deeper)
    assert ":" not in past.sh("ls search/plugin:noop/op:delete").stdout, "or find(1) would never end"
    completed = past.sh("compgen -f search/op:d").stdout.split()
    assert "search/op:delete" in completed


def test_nobody_finds_what_is_not_his_to_read(past):
    assert "element:noop:vault" in past.sh("ls search").stdout
    assert "vault" not in past.as_nobody("ls search search/plugin:noop search/results search/similar").stdout
    for path in ("changes", "text/bank", "similar/bank", "hybrid/bank.json", "element:noop:vault/changes"):
        assert "vault" not in past.as_nobody(f"cat 'search/{path}'").stdout, path
    assert "noop-web" in past.as_nobody("ls 'search/results/web server'").stdout
    (theirs,) = (name for name in os.listdir(past.mount / "search/results/bank") if "vault" in name)
    refused = past.as_nobody(f"readlink 'search/results/bank/{theirs}'; cat 'search/results/bank/{theirs}'")
    assert "No such file" in refused.stderr
    assert "hidden" not in refused.stdout


def test_the_command_says_what_the_files_say(past):
    def lines(*arguments):
        return [json.loads(line) for line in past.opfs("search", "--json", *arguments).stdout.splitlines()]

    assert lines("--op", "delete", "--element", "noop/mail") == hits(past, "op:delete/changes.json")
    assert lines("--verb", "text", "relay") == hits(past, "limit:10/text/relay.json")
    assert [hit["block"] for hit in lines("--element", "noop/web", "--since", "2", "--until", "4")] == [3]
    assert "relay" in past.opfs("search", "--verb", "text", "relay").stdout
    nothing = past.opfs("search", "--plugin", "nop")
    assert (nothing.stdout, nothing.stderr) == ("", "opfs: nothing found of nop; did you mean noop?\n")
    bad = past.opfs("search", "--since", "sometime soon", check=False)
    assert bad.returncode == 2
    assert "since:yesterday" in bad.stderr


# --- without a model -----------------------------------------------------------------------------------------


def test_without_a_model_words_are_found_and_the_rest_says_how_to_get_one(btrfs_dir, work_dir, tmp_path):
    with serve(btrfs_dir, work_dir, settings={"OPFS_MODELS": str(tmp_path / "none")}) as bare:
        bare.put("noop/web", purpose="public web server")
        assert elements(bare, "text/public.json") == ["web"]
        assert elements(bare, "op:create/changes.json") == ["web"]
        number, told = refusal(bare, "similar/public")
        assert number == errno.EIO
        assert "opfs model fetch" in " ".join(told.split())
        assert "search for words: text/" in told
        bare.sh("echo '{' > state/noop/web.json", check=False)
        assert "accepted noop/web in block 1" in seen(bare)


# --- seen before ---------------------------------------------------------------------------------------------


def seen(opfs, read=None):
    """What the newest refusal says, once it says it all."""
    read = read or (lambda: (opfs.mount / "errors").read_text())
    deadline = time.monotonic() + 120
    while True:
        told = read().split("\n\n")[-1]
        if "still looking" not in told:
            return told
        assert time.monotonic() < deadline, told


@pytest.fixture(scope="module")
def failed(opfs, tmp_path_factory):
    """A file whose directory was missing, and its directory made and the write tried again."""
    place = tmp_path_factory.mktemp("host")
    document = {"path": f"{place}/missing/motd", "content": "hello"}
    with pytest.raises(OSError, match="Input/output error"):
        opfs.put("file/motd", **document)
    (place / "missing").mkdir()
    opfs.put("file/motd", **document)
    return opfs, place


def test_a_rejection_names_what_was_accepted_and_where_it_is(failed):
    opfs, place = failed
    assert opfs.sh(
        f'echo \'{{"path": "{place}/missing/issue", "contents": "x"}}\' > state/file/issue.json', check=False
    ).returncode
    told = seen(opfs)
    assert "accepted file/motd in block" in told
    path = next(line.strip() for line in told.splitlines() if line.strip().startswith("history/file/motd/"))
    assert json.loads((opfs.mount / path).read_text())["content"] == "hello"
    reason = seen(opfs, lambda: (opfs.mount / "rejected/file/issue.reason").read_text())
    assert path in reason


def test_a_failure_names_an_earlier_one_and_what_followed_it(failed):
    opfs, place = failed
    with pytest.raises(OSError, match="Input/output error"):
        opfs.put("file/issue", path=f"{place}/absent/issue", content="hello")
    told = seen(opfs)
    assert "failed   file/motd in block" in told
    assert "failed   file/issue" not in told, "it is not its own precedent"
    assert "then     file/motd in block" in told


def test_the_command_line_shows_it_too(failed):
    opfs, place = failed
    wanted = place / "wanted" / "file"
    wanted.mkdir(parents=True)
    (wanted / "issue.json").write_text(json.dumps({"path": f"{place}/missing/issue", "contents": "x"}))
    deadline = time.monotonic() + 120
    while "seen before:" not in (done := opfs.opfs("plan", str(wanted.parent), check=False)).stderr:
        assert done.returncode == 2
        assert time.monotonic() < deadline, done.stderr
    lines = done.stderr.splitlines()
    assert "unknown key 'contents'" in lines[0]
    assert any(line.strip().startswith(f"{opfs.mount}/history/file/motd/") for line in lines)


def test_nobody_is_told_of_what_he_may_not_read(past):
    past.sh('umask 077; echo \'{"purpose": "hidden ledger of the bank"}\' > state/noop/ledger.json')
    past.sh(f"echo '{{}}' > state/noop/guest.json; chown {NOBODY} state/noop/guest.json")
    refused = past.as_nobody('echo \'{"purpose": "hidden ledger of the bank", "$after": 5}\' > state/noop/guest.json')
    assert "Invalid argument" in refused.stderr
    told = seen(past, lambda: past.as_nobody("cat errors").stdout)
    assert "noop/guest" in told
    assert "ledger" not in told.partition("state/noop/guest.json")[0]
