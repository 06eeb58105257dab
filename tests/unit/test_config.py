"""The configuration: its sources and their order, and what it says of values that are wrong."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from opfs.config import SETTINGS, Config, load_config
from opfs.core.cadence import Cadence
from opfs.core.meta import Mode
from opfs.core.rules import PluginRules
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


TEXTS = [setting for setting in SETTINGS if setting.key not in ("plugin", "hook")]


@pytest.mark.parametrize("setting", TEXTS, ids=lambda setting: setting.key)
def test_the_file_and_the_environment_read_alike(load, setting):
    texts = {
        "pool": "/a",
        "mount": "/a",
        "models": "/a",
        "embedding_variant": "int8",
        "embedding_providers": "tensorrt, cuda",
        "embedding_threads": "7",
        "embedding_idle_unload_s": "7.5",
        "placement": "round_robin",
        "memory_policy": "interleaved",
        "lxc_path": "/a",
        "witness_policy": "/a",
        "metrics_listen": "[::1]:9090",
        "origin": "host1.example/opfs",
        "image_size_bytes": "8G",
        "plugins": "a.b:C",
        "scrub_interval_s": "7.5",
        "request_timeout_s": "7.5",
        "ready_timeout_s": "7.5",
        "log_level": "debug",
        "retain_newest": "7",
        "retain_hourly": "7",
        "retain_daily": "7",
        "retain_weekly": "7",
        "retain_quarterly": "7",
        "retain_min_free": "12.5%",
        "max_live_blocks": "7",
        "snapshot_interval": "hourly",
        "snapshot_threshold": "auto",
        "cache_dir": "/a",
        "cache_max_bytes": "1G",
        "cache_layers": "diffs",
        "max_cache_snapshots": "7",
        "secrets": "/a",
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
        ('cache_layers = ["meals"]', "embeddings, queries"),
        ('cache_max_bytes = "much"', "cache_max_bytes"),
        ("ready_timeout_s = 0", "ready_timeout_s"),
        ("ready_timeout_s = nan", "ready_timeout_s"),
        ('request_timeout_s = "soon"', "request_timeout_s"),
        ('log_level = "loud"', "info"),
        ('embedding_variant = "int4"', "fp32, int8"),
        ('embedding_providers = ["gpu"]', "cpu, cuda, tensorrt"),
        ("embedding_providers = [[]]", "cpu, cuda, tensorrt"),
        ("embedding_providers = []", "cpu, cuda, tensorrt"),
        ("embedding_threads = 0", "from 1 to 64"),
        ('placement = "somewhere"', "local_node, round_robin, most_memory, disabled"),
        ('memory_policy = "glue"', "bind, preferred, interleaved, default"),
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


def test_a_wrong_value_is_told_with_its_source_and_not_at_any_length():
    with pytest.raises(InvalidRequest) as caught:
        load_config({}, {"OPFS_IMAGE_SIZE": "10M" + "0" * 1000})
    assert caught.value.reason.startswith("OPFS_IMAGE_SIZE cannot be '10M000")
    assert "(size of a new pool image" in caught.value.reason
    assert len(caught.value.reason) < 150


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


def test_the_proposals_names_of_settings_are_read(load):
    placed = load(OPDBUS_CACHE_PLACEMENT="most_memory", OPDBUS_CACHE_MEMORY_POLICY="bind")
    assert (placed.placement, placed.memory_policy, placed.warnings) == ("most_memory", "bind", ())
    config = load(OPDBUS_CACHE_DIR="/srv/cache", OPDBUS_MAX_CACHE_SNAPSHOTS="5", OPDBUS_RETAIN_DAILY="9")
    assert (config.cache_dir, config.max_cache_snapshots, config.retain_daily) == (Path("/srv/cache"), 5, 9)
    assert config.warnings == ()
    for name, bad in (
        ("OPDBUS_CACHE_DIR", "cache"),
        ("OPDBUS_CACHE_PLACEMENT", "here"),
        ("OPDBUS_MAX_CACHE_SNAPSHOTS", "many"),
    ):
        with pytest.raises(InvalidRequest, match=name):
            load(**{name: bad})


def test_the_interval_of_the_proposal_keeps_its_name(load):
    assert load().cadence == Cadence("per-op", "off")
    for interval in ("per-op", "every-15-minutes", "hourly", "daily", "weekly"):
        config = load(OPDBUS_SNAPSHOT_INTERVAL=interval, OPFS_SNAPSHOT_THRESHOLD="auto")
        assert (config.cadence, config.warnings) == (Cadence(interval, "auto"), ())
    for variable in ("OPDBUS_SNAPSHOT_INTERVAL", "OPFS_SNAPSHOT_INTERVAL", "OPFS_SNAPSHOT_THRESHOLD"):
        with pytest.raises(InvalidRequest, match=variable):
            load(**{variable: "every-0-minutes"})


@pytest.mark.parametrize("period", ["hourly", "daily", "weekly", "quarterly"])
def test_the_retention_of_the_proposal_keeps_its_names(load, period):
    variable = f"OPDBUS_RETAIN_{period.upper()}"
    assert getattr(load().retention, period) == 5
    config = load(**{variable: "7"})
    assert (getattr(config.retention, period), config.warnings) == (7, ())
    assert getattr(load(**{variable: "7", f"OPFS_RETAIN_{period.upper()}": "8"}).retention, period) == 8
    for bad in ("five", "-1", "1.5", " "):
        with pytest.raises(InvalidRequest, match=variable):
            load(**{variable: bad})


@pytest.mark.parametrize("name", ["OPFS_MOUTN", "OPDBUS_RETAIN_YEARLY"])
def test_an_unknown_variable_is_reported(load, name):
    (warning,) = load(**{name: "1"}).warnings
    assert name in warning


# --- tables of plugins


TABLES = """
log_level = "info"

[plugin.net]
mode = "observe"
poll_interval_s = 5
ports = [1, 2]

[plugin.my-own]
correct_drift = true
"""


def test_the_tables_of_plugins(load):
    config = load(TABLES)
    assert config.plugin_rules == {
        "net": PluginRules(mode=Mode.OBSERVE, poll_interval_s=5.0),
        "my-own": PluginRules(correct_drift=True),
    }
    assert config.plugin_settings("net") == {"ports": [1, 2]}
    assert config.plugin_settings("lxc") == {"lxcpath": "/var/lib/lxc"}


def test_the_tables_in_the_environment(load):
    config = load(TABLES, OPFS_PLUGIN='net.poll_interval_s = 1\nlxc.lxcpath = "/a"')
    assert config.plugin_rules == {"net": PluginRules(poll_interval_s=1.0), "lxc": PluginRules()}
    assert config.plugin_settings("lxc") == {"lxcpath": "/a"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[plugin.net]\nmod = "observe"', "did you mean mode?"),
        ('[plugin.net]\nmode = "watch"', "give one of enforce, observe"),
        ("[plugin.net]\ncorrect_drift = 1", "give true or false"),
        ("[plugin.net]\npoll_interval_s = 0.01", "from 0.1 up to 86400"),
        ("[plugin.net]\npoll_interval_s = nan", "from 0.1 up to 86400"),
        ("[plugin.net]\npoll_interval_s = true", "from 0.1 up to 86400"),
        ('[plugin]\nnet = "observe"', "plugin.net is no table"),
        ('[plugin."../net"]', "cannot be the name of a plugin"),
        ("plugin = 3", "write a table for each plugin"),
    ],
)
def test_a_wrong_table_is_refused(load, text, told):
    with pytest.raises(InvalidRequest, match=re.escape(told)):
        load(text)


def test_a_wrong_table_in_the_environment_is_refused(load):
    with pytest.raises(InvalidRequest, match=r"OPFS_PLUGIN.*write TOML"):
        load(OPFS_PLUGIN="net.mode = observe")


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
