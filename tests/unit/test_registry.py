"""Plugins are found, built and checked; one that cannot be loaded is listed with the reason and stops nothing."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from opfs.core.action import Action, Kind
from opfs.errors import InvalidRequest, NotFound, Rejected
from opfs.plugins.contract import PluginContext, hash_package
from opfs.plugins.registry import BUILT_IN, build_plugin, load_plugins

ROOT = Path(__file__).parents[2]
NOOP = "opfs.testing.noop:NoopPlugin"


@pytest.fixture
def context_of(tmp_path):
    asked = []

    def context(name):
        asked.append(name)
        return PluginContext(tmp_path / name, (tmp_path / "pool",), {"lxcpath": str(tmp_path / "lxc")})

    context.asked = asked
    return context


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a module of foreign plugins and make it importable under a name of its own."""

    def write(text, name="foreign_plugins"):
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "lib" / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(str(tmp_path / "lib"))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def test_the_built_in_plugins_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["opfs.plugins"] == BUILT_IN


def test_built_in_and_named_plugins_are_built_from_their_own_context(context_of):
    plugins = load_plugins(context_of, [NOOP, NOOP])
    assert list(plugins) == sorted([*BUILT_IN, "noop"])
    assert sorted(context_of.asked) == sorted([*BUILT_IN, "noop"]), "each once"
    assert str(plugins["lxc"].lxcpath).endswith("/lxc")
    assert plugins.require("noop") is plugins["noop"]


def test_an_unknown_plugin_is_not_found_and_the_nearest_is_named(context_of):
    with pytest.raises(NotFound, match=r"no plugin 'lcx'; did you mean 'lxc'\?"):
        load_plugins(context_of).require("lcx")


BROKEN = """
    from opfs.testing.noop import NoopPlugin

    class Raises(NoopPlugin):
        name = "raises"
        def __init__(self):
            raise ZeroDivisionError("on purpose")

    class BadName(NoopPlugin):
        name = "Bad Name"

    class BadSchema(NoopPlugin):
        name = "badschema"
        def __init__(self):
            super().__init__()
            self.schema = {"type": "objekt"}

    class NoObject(NoopPlugin):
        name = "noobject"
        def __init__(self):
            super().__init__()
            self.schema = {"type": "array"}

    class Nothing:
        name = "nothing"
        schema = {"type": "object"}
        @classmethod
        def from_context(cls, context):
            return cls()

    class Other(NoopPlugin):
        name = "lxc"

    class Reserved(NoopPlugin):
        name = "opfs"
"""


@pytest.mark.parametrize(
    ("class_name", "reason"),
    [
        ("Raises", "ZeroDivisionError: on purpose"),
        ("BadName", "calls itself 'Bad Name'"),
        ("Reserved", "events about opfs itself have that name"),
        ("BadSchema", "schema"),
        ("NoObject", "does not describe an object"),
        ("Nothing", "it lacks .*observe"),
        ("Missing", "no class 'Missing'"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_listed_with_the_reason(package, context_of, caplog, class_name, reason):
    spec = f"{package(BROKEN)}:{class_name}"
    plugins = load_plugins(context_of, [spec, NOOP])
    assert list(plugins) == sorted([*BUILT_IN, "noop", spec])
    with pytest.raises(Rejected, match=reason):
        plugins.require(spec)
    assert spec in caplog.text
    caplog.clear()


@pytest.mark.parametrize("spec", ["os", "os:", ":x", "os:system;rm", "../x:y", "os.path:join "])
def test_what_names_no_class_is_not_imported(context_of, spec):
    with pytest.raises(InvalidRequest, match="does not name a plugin"):
        build_plugin(spec, context_of)


def test_a_module_with_a_syntax_error_stops_nothing(package, context_of, caplog):
    spec = f"{package('def', 'broken_module')}:X"
    plugins = load_plugins(context_of, [spec])
    assert "SyntaxError" in plugins[spec].why_unavailable()
    assert plugins["file"].why_unavailable() is None
    caplog.clear()


def test_nobody_takes_the_name_of_a_built_in_plugin(package, context_of, caplog):
    spec = f"{package(BROKEN)}:Other"
    plugins = load_plugins(context_of, [spec])
    assert type(plugins["lxc"]).__name__ == "LxcPlugin"
    assert "another plugin of that name" in plugins[spec].why_unavailable()
    caplog.clear()


def test_installed_packages_add_plugins(context_of, monkeypatch):
    entry = EntryPoint("noop", NOOP, "opfs.plugins")
    missing = EntryPoint("missing", "no_such_module_here:X", "opfs.plugins")
    monkeypatch.setattr("opfs.plugins.registry.entry_points", lambda group: EntryPoints([missing, entry]))
    plugins = load_plugins(context_of)
    assert plugins["noop"].name == "noop"
    assert "ModuleNotFoundError" in plugins["missing"].why_unavailable(), "under the name it was installed as"


async def test_an_unavailable_plugin_refuses_everything(package, context_of, caplog):
    spec = f"{package(BROKEN)}:Raises"
    plugin = load_plugins(context_of, [spec])[spec]
    assert await plugin.observe(None) == {}
    for call in (lambda: plugin.check("a", {}), lambda: plugin.plan("a", None, {})):
        with pytest.raises(Rejected, match="on purpose"):
            call()
    with pytest.raises(Rejected, match="on purpose"):
        await plugin.apply(Action(Kind.CREATE, "a", "step", "summary"))
    caplog.clear()


def test_the_hash_covers_names_and_contents_and_not_what_python_compiles(tmp_path):
    seen = set()

    def hash_now():
        digest = hash_package(tmp_path)
        assert len(digest) == 64
        seen.add(digest)

    hash_now()
    (tmp_path / "a").write_text("bc")
    hash_now()
    (tmp_path / "a").rename(tmp_path / "ab")
    (tmp_path / "ab").write_text("c")
    hash_now()
    (tmp_path / "sub").mkdir()
    (tmp_path / "ab").rename(tmp_path / "sub/ab")
    hash_now()
    assert len(seen) == 4
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/x.pyc").write_text("compiled")
    hash_now()
    assert len(seen) == 4


def test_each_plugin_s_hash_is_of_its_own_folder(context_of):
    plugins = load_plugins(context_of)
    assert plugins["file"].version_hash == hash_package(ROOT / "opfs/plugins/file")
    assert plugins["lxc"].version_hash == hash_package(ROOT / "opfs/plugins/lxc")
