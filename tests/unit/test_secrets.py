"""Secrets: where they come from, who may have put them there, and that their values are shown nowhere."""

import base64
import json
import logging
import os
import re

import pytest
from commitpath import ALICE, CommitPath, until
from hypothesis import given
from hypothesis import strategies as st

from opfs.commit.change import Change, Request
from opfs.commit.live import Live
from opfs.core.names import ElementId
from opfs.core.redaction import MAX_VALUES, Redactor
from opfs.core.secretfields import check_secrets, has_secrets, mask_secrets
from opfs.daemon.discretion import DiscreetLog
from opfs.errors import ApplyFailed, InvalidRequest, OpfsError
from opfs.plugins.secrets import MAX_BYTES, Secrets
from opfs.ports import Sighting

A = ElementId("memory", "a")
VALUE = "hunter2\N{SNOWMAN}\"'\\"


@pytest.fixture
def places(tmp_path):
    """A credentials directory and one of root's, and what looks into both."""
    credentials, directory = tmp_path / "credentials", tmp_path / "secrets"
    for place in (credentials, directory):
        place.mkdir(mode=0o700)
    return credentials, directory, Secrets(directory, {"CREDENTIALS_DIRECTORY": str(credentials)})


def put(path, value=b"x", mode=0o600):
    path.write_bytes(value)
    path.chmod(mode)


# --- where they come from


@pytest.mark.needs("root")
def test_credentials_come_before_the_directory(places):
    credentials, directory, secrets = places
    put(directory / "key", b"of root\n")
    assert secrets("key") == b"of root\n"
    put(credentials / "key", b"of systemd", 0o400)
    assert secrets("key") == b"of systemd"


@pytest.mark.needs("root")
def test_every_value_handed_out_is_told_of(tmp_path):
    (tmp_path / "s").mkdir(mode=0o700)
    put(tmp_path / "s" / "key", b"value")
    told = []
    assert Secrets(tmp_path / "s", {}, lambda *found: told.append(found))("key") == b"value"
    assert told == [("key", b"value")]


def test_one_that_is_not_there_says_where_it_belongs(places, tmp_path):
    credentials, directory, secrets = places
    if os.geteuid() == 0:
        with pytest.raises(ApplyFailed, match=re.escape(f"{credentials}/key or {directory}/key")):
            secrets("key")
    with pytest.raises(ApplyFailed, match="there is no secret"):
        Secrets(tmp_path / "nowhere", {"CREDENTIALS_DIRECTORY": "relative"})("key")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../key", "a/b", "/etc/passwd", ".hidden", "a\0b", "a" * 101, "kéy", "a\n"]
)
def test_hostile_names_are_refused(places, name):
    with pytest.raises(ApplyFailed, match="cannot be the name of a secret"):
        places[2](name)


@pytest.mark.needs("root")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o777])
def test_one_that_others_could_read_or_change_is_refused(places, mode):
    put(places[1] / "key", mode=mode)
    with pytest.raises(ApplyFailed, match=f"mode {mode:04o}, which lets others in; chmod 0600"):
        places[2]("key")


@pytest.mark.needs("root")
def test_one_of_somebody_else_is_refused(places):
    put(places[1] / "key")
    os.chown(places[1] / "key", 1000, 0)
    with pytest.raises(ApplyFailed, match="belongs to uid 1000; chown root"):
        places[2]("key")


@pytest.mark.needs("root")
@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o777), lambda path: os.chown(path, 1000, 0)])
def test_a_directory_others_could_write_to_is_refused(places, spoil):
    put(places[1] / "key")
    spoil(places[1])
    with pytest.raises(ApplyFailed, match=r"lets others in|belongs to uid 1000"):
        places[2]("key")


@pytest.mark.needs("root")
def test_only_a_file_of_some_size_is_a_secret(places):
    _, directory, secrets = places
    put(directory / "real")
    (directory / "link").symlink_to(directory / "real")
    (directory / "folder").mkdir()
    os.mkfifo(directory / "pipe", 0o600)
    put(directory / "large", bytes(MAX_BYTES + 1))
    put(directory / "full", bytes(MAX_BYTES))
    for name, told in {
        "link": "symbolic link",
        "folder": "is no file",
        "pipe": "is no file",
        "large": "larger",
    }.items():
        with pytest.raises(ApplyFailed, match=told):
            secrets(name)
    assert len(secrets("full")) == MAX_BYTES


# --- what documents may say

SCHEMA = {
    "type": "object",
    "properties": {
        "token": {"x-secret": True},
        "either": {"anyOf": [{"type": "string", "x-secret": True}, {"$ref": "#/$defs/secret"}]},
        "peers": {"type": "array", "items": {"properties": {"key": {"$ref": "#/$defs/secret"}}}},
        "free": {"additionalProperties": {"x-secret": True}, "properties": {"plain": {}}},
        "named": {"patternProperties": {"^x": {"x-secret": True}}},
        "pair": {"prefixItems": [{}, {"x-secret": True}]},
    },
    "$defs": {"secret": {"x-secret": True, "type": ["string", "object"]}},
}


@pytest.mark.parametrize(
    ("text", "spot"),
    [
        ('{"token": "hunter2"}', (1, 11)),
        ('{"token": {"$secret": "a", "more": 1}}', (1, 11)),
        ('{"token": {"$secret": 3}}', (1, 11)),
        ('{"token": null}', (1, 11)),
        ('{"either": "hunter2"}', (1, 12)),
        ('{"peers": [{}, {"key": "hunter2"}]}', (1, 24)),
        ('{"free": {"plain": "x", "other": "hunter2"}}', (1, 34)),
        ('{"named": {"a": "x", "xy": "hunter2"}}', (1, 28)),
        ('{"pair": ["a", "hunter2"]}', (1, 16)),
        ('{"token": {"$secret": "../key"}}', (1, 11)),
    ],
)
def test_a_value_in_a_document_is_refused_and_not_repeated(text, spot):
    with pytest.raises(InvalidRequest) as caught:
        check_secrets(SCHEMA, json.loads(text), text.encode())
    assert (caught.value.location.line, caught.value.location.column) == spot
    assert "hunter2" not in str(caught.value)


def test_names_of_secrets_pass():
    document = {
        "token": {"$secret": "a"},
        "either": {"$secret": "a.b-c@d_e"},
        "peers": [{"key": {"$secret": "a"}}, {}],
        "free": {"plain": "x", "other": {"$secret": "a"}},
        "named": {"a": "x"},
        "pair": ["x", {"$secret": "a"}],
    }
    check_secrets(SCHEMA, document, json.dumps(document).encode())
    assert mask_secrets(SCHEMA, document) == document


def test_what_a_host_says_of_itself_is_masked():
    observed = {"token": "hunter2", "peers": [{"key": "hunter2", "port": 1}], "pair": ["hunter1", "hunter2"], "a": 1}
    masked = mask_secrets(SCHEMA, observed)
    assert "hunter2" not in repr(masked)
    assert (masked["peers"][0]["port"], masked["pair"][0], masked["a"]) == (1, "hunter1", 1)
    assert observed["token"] == "hunter2"


def test_most_schemas_mark_nothing():
    assert has_secrets(SCHEMA)
    assert not has_secrets({"type": "object", "properties": {"secret": {"type": "string"}}})


def test_a_schema_that_refers_to_itself_ends():
    schema = {"$ref": "#", "properties": {"a": {"$ref": "#"}, "s": {"x-secret": True}}}
    deep = document = {}
    for _ in range(60):
        deep["a"] = {}
        deep = deep["a"]
    deep["s"] = "hunter2"
    with pytest.raises(InvalidRequest):
        check_secrets(schema, document, json.dumps(document).encode())


# --- that they are shown nowhere


@given(st.text(min_size=1), st.text(), st.text())
def test_a_value_is_taken_out_of_a_text_in_every_form(value, before, after):
    redact = Redactor()
    redact.add("key", value.encode("utf-8", "surrogatepass"))
    shown = value.encode("utf-8", "surrogatepass").decode(errors="replace")
    forms = [shown, json.dumps(shown)[1:-1], base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()]
    for form in forms:
        text = redact(f"{before}{form}{after}")
        assert "[secret key]" in text
        assert form not in text.replace("[secret key]", "")


def test_only_so_many_are_remembered():
    redact = Redactor()
    assert not redact.knows_any
    for number in range(MAX_VALUES):
        redact.add("n", f"value-{number:08}-".encode())
    assert redact(f"value-{MAX_VALUES - 1:08}-") == "[secret n]"
    assert redact("value-00000000-") == "value-00000000-"


def test_the_log_is_discreet():
    redact = Redactor()
    redact.add("key", b"hunter2")
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))
    handler.addFilter(DiscreetLog(redact))
    log = logging.Logger("opfs.test")
    log.addHandler(handler)
    log.info("the backend said %s", "hunter2")
    try:
        raise ValueError("bad key hunter2")
    except ValueError:
        log.exception("a bug")
    assert len(lines) == 2
    assert "hunter2" not in "".join(lines)
    assert "Traceback" in lines[1]


@pytest.fixture
def path(tmp_path):
    """A plugin that resolves its secret as it applies, and a backend that repeats it in all it says."""
    commit_path = CommitPath(tmp_path)
    plugin = commit_path.plugin
    plugin.schema = {**plugin.schema, "properties": {**plugin.schema["properties"], "token": {"x-secret": True}}}
    do = plugin._do

    def with_token(action):
        if action.step == "set token":
            commit_path.redactor.add(action.details["value"]["$secret"], VALUE.encode())
            plugin.resolved = True
        do(action)

    plugin._do = with_token
    yield commit_path
    assert commit_path.findings() == []


def everything_kept(path):
    kept = [data for block in path.store.blocks.values() for data in (block.header, block.events)]
    kept += [file.read_bytes() for file in path.directory.iterdir()]
    return b"".join(kept).decode()


def assert_nowhere(path, *texts):
    for text in (everything_kept(path), *texts):
        for form in (VALUE, json.dumps(VALUE)[1:-1], repr(VALUE)[1:-1], "hunter2"):
            assert form not in text


def with_token(**settings):
    document = {"token": {"$secret": "key"}, **settings}
    return Request((Change(A, json.dumps(document).encode()),), ALICE)


async def test_a_raw_value_is_refused_even_where_the_plugins_schema_lets_it_pass(path):
    async with path.started() as sequencer:
        with pytest.raises(InvalidRequest, match="holds a secret, which is never written"):
            await sequencer.submit(Request((Change(A, b'{"token": "hunter2"}'),), ALICE))
        assert len(sequencer.blocks) == 1


@pytest.mark.parametrize("kind", [ApplyFailed, KeyError])
async def test_a_backend_that_repeats_it_is_not_quoted(path, caplog, kind):
    async with path.started() as sequencer:
        await sequencer.submit(with_token())
        apply = path.plugin.apply

        async def indiscreet(action):
            if action.step == "set size":
                raise kind(f"cannot set it with {VALUE}")
            return await apply(action)

        path.plugin.apply = indiscreet
        with pytest.raises(ApplyFailed, match="secret key") as caught:
            await sequencer.submit(with_token(size=1))
        assert_nowhere(path, str(caught.value), repr(caught.value))
    assert path.events()[-1].op == "apply-failed"


async def test_a_backend_that_repeats_it_in_what_is_observed_is_not_quoted(path):
    path.follows_drift = True
    async with path.started() as sequencer:
        await sequencer.submit(with_token(colour="red"))
        path.plugin.host["a"]["colour"] = VALUE
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(lambda: sequencer.status(A).startswith("drifted"))
        assert "[secret key]" in sequencer.status(A)
        assert_nowhere(path, sequencer.status(A))


async def test_a_reader_of_the_host_is_not_told(path):
    async with path.started() as sequencer:
        await sequencer.submit(with_token())

        async def indiscreet(elements, *, desired=None):
            raise ApplyFailed(f"the backend says {VALUE}")

        path.plugin.observe = indiscreet
        with pytest.raises(OpfsError) as caught:
            await Live(sequencer).look(A)
        assert VALUE not in str(caught.value)


async def test_a_plan_that_holds_it_is_not_journaled(path):
    async with path.started() as sequencer:
        await sequencer.submit(with_token())
        path.plugin.host["a"]["colour"] = VALUE
        with pytest.raises(ApplyFailed, match="would write a secret into the journal"):
            await sequencer.submit(with_token(size=1))
        assert_nowhere(path)


def test_a_value_that_was_cut_short_is_known_by_its_beginning():
    redact = Redactor()
    long = "A1b2C3d4" * 60
    redact.add("long", long.encode())
    assert redact(f"wanted 1, found {long[:190]}…, and more") == "wanted 1, found [secret long] and more"
    assert redact(f"found {long}") == "found [secret long]"
    assert redact(long[:10]) == long[:10]
