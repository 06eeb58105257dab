"""The configuration: its sources and their order, and what it says of values that are wrong."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from opfs.config import PROPOSAL_VARIABLES, SETTINGS, Config, load_config
from opfs.errors import InvalidRequest

EXAMPLE = Path(__file__).parents[2] / "mount" / "opfs.toml"


@pytest.fixture
def load(tmp_path):
    """Load with the text of a file, an environment and flags."""

    def load(text="", flags=None, **environment):
        path = tmp_path / "opfs.toml"
        path.write_text(text)
        path.chmod(0o644)
        return load_config(flags or {}, {"OPFS_CONFIG": str(path), **environment})

    return load


def test_every_setting_is_a_field_and_every_field_a_setting():
    assert [setting.key for setting in SETTINGS] == [f.name for f in fields(Config) if f.name != "warnings"]


def test_defaults_are_those_of_the_interface(load):
    config = load()
    assert (config.pool, config.mount) == (Path("/var/lib/op-dbus"), Path("/mnt/op"))
    assert config.warnings == ()


def test_later_sources_win(load):
    assert load('pool = "/file"').pool == Path("/file")
    assert load('pool = "/file"', OPDBUS_BLOCKCHAIN_DIR="/proposal").pool == Path("/proposal")
    both = {"OPDBUS_BLOCKCHAIN_DIR": "/proposal", "OPFS_POOL": "/environment"}
    assert load('pool = "/file"', **both).pool == Path("/environment")
    assert load('pool = "/file"', flags={"pool": "/flag"}, **both).pool == Path("/flag")
    assert load('pool = "/file"', flags={"pool": None}).pool == Path("/file")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_the_file_and_the_environment_read_alike(load, setting):
    texts = {
        "pool": "/a",
        "mount": "/a",
        "models": "/a",
        "lxc_path": "/a",
        "witness_policy": "/a",
        "origin": "host1.example/opfs",
        "image_size_bytes": "8G",
        "plugins": "a.b:C",
        "scrub_interval_s": "7.5",
        "request_timeout_s": "7.5",
        "ready_timeout_s": "7.5",
        "log_level": "debug",
    }
    from_environment = getattr(load(**{setting.variable: texts[setting.key]}), setting.key)
    assert from_environment != setting.default
    assert getattr(load(f'{setting.key} = "{texts[setting.key]}"'), setting.key) == from_environment


def test_typed_values_of_the_file(load):
    config = load('plugins = ["a.b:C", "d:E"]\nimage_size_bytes = 1073741824\nready_timeout_s = 5')
    assert config.plugins == ("a.b:C", "d:E")
    assert config.image_size_bytes == 1 << 30
    assert config.ready_timeout_s == 5.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('pool = "relative"', "pool"),
        ("pool = 5", "pool"),
        ('pool = ""', "pool"),
        ('origin = "https://host/opfs"', "origin"),
        ('origin = "a b"', "origin"),
        ('origin = "a+b"', "origin"),
        ('image_size_bytes = "8 bananas"', "image_size_bytes"),
        ("image_size_bytes = true", "image_size_bytes"),
        ("image_size_bytes = 1000", "256M"),
        ('plugins = ["no colon"]', "plugins"),
        ("ready_timeout_s = 0", "ready_timeout_s"),
        ("ready_timeout_s = nan", "ready_timeout_s"),
        ('request_timeout_s = "soon"', "request_timeout_s"),
        ('log_level = "loud"', "info"),
        ('mont = "/a"', "the nearest known key is mount"),
        ("zzzz = 1", "known keys: pool, mount"),
        ("pool = ", "is not TOML"),
        ("pool = '/a'\npool = '/b'", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_what_would_be_right(load, text, named):
    with pytest.raises(InvalidRequest) as caught:
        load(text)
    assert named in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_is_named_must_exist(tmp_path):
    with pytest.raises(InvalidRequest, match="does not exist"):
        load_config({}, {"OPFS_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.needs("root")
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(tmp_path, mode):
    path = tmp_path / "opfs.toml"
    path.touch()
    path.chmod(mode)
    with pytest.raises(InvalidRequest, match="written by others"):
        load_config({}, {"OPFS_CONFIG": str(path)})


@pytest.mark.parametrize(("pool", "mount"), [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a"), ("/a/../b", "/b")])
def test_pool_and_mount_lie_apart(load, pool, mount):
    with pytest.raises(InvalidRequest, match="one inside the other"):
        load(flags={"pool": pool, "mount": mount})


# --- the variables of the original proposal


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("OPDBUS_CACHE_DIR", "/cache", "cache"),
        ("OPDBUS_CACHE_PLACEMENT", "round_robin", "somewhere"),
        ("OPDBUS_CACHE_MEMORY_POLICY", "bind", "glue"),
        ("OPDBUS_SNAPSHOT_INTERVAL", "every-15-minutes", "every-0-minutes"),
        ("OPDBUS_RETAIN_HOURLY", "5", "five"),
        ("OPDBUS_RETAIN_DAILY", "5", "-1"),
        ("OPDBUS_RETAIN_WEEKLY", "5", "1.5"),
        ("OPDBUS_RETAIN_QUARTERLY", "5", " "),
        ("OPDBUS_MAX_CACHE_SNAPSHOTS", "24", "many"),
    ],
)
def test_variables_without_effect_are_checked_and_reported(load, name, good, bad):
    (warning,) = load(**{name: good}).warnings
    assert name in warning
    assert "not implemented yet" in warning
    with pytest.raises(InvalidRequest, match=name):
        load(**{name: bad})


def test_no_variable_of_the_proposal_is_missing_above():
    (mark,) = [
        mark for mark in test_variables_without_effect_are_checked_and_reported.pytestmark if mark.name == "parametrize"
    ]
    assert {row[0] for row in mark.args[1]} == set(PROPOSAL_VARIABLES)


def test_the_interval_that_opfs_has_is_no_warning(load):
    assert load(OPDBUS_SNAPSHOT_INTERVAL="per-op").warnings == ()


@pytest.mark.parametrize("name", ["OPFS_MOUTN", "OPDBUS_RETAIN_YEARLY"])
def test_an_unknown_variable_is_reported(load, name):
    (warning,) = load(**{name: "1"}).warnings
    assert name in warning


# --- what others rely on


def test_the_example_file_has_every_key_with_its_default_and_variable(load):
    text = EXAMPLE.read_text()
    assert tomllib.loads(text) == {}
    uncommented = "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))
    values = tomllib.loads(uncommented)
    assert list(values) == [setting.key for setting in SETTINGS]
    config = load(uncommented)
    for setting in SETTINGS:
        assert f"[{setting.variable}" in text
        if setting.default is not None:
            assert getattr(config, setting.key) == setting.default


def test_pools_have_runtime_directories_of_their_own(load):
    paths = {load(OPFS_POOL=pool).runtime for pool in ("/a/b", "/a-b", "/a", "/")[:3]}
    assert len(paths) == 3
    assert all(len(str(path)) < 108 for path in paths)
