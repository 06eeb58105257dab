"""Which plugins there are: those of installed packages, then those that the configuration names.

A plugin that cannot be loaded never stops the daemon: it is listed as unavailable, with the reason. The
registry builds plugins and checks what they say of themselves; it never calls one to observe or to apply.
Synchronous, called once at start, before anything is served; importing a plugin runs its code.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from opfs.core.names import OWN_EVENTS, PLUGIN_NAME
from opfs.core.schema import DocumentSchema
from opfs.errors import InvalidRequest, NotFound, OpfsError, Rejected
from opfs.plugins.contract import ContractDefaults, PluginContext
from opfs.ports import Plugin

if TYPE_CHECKING:
    from opfs.core.action import Action, ApplyResult, Document, StateDiff

log = logging.getLogger(__name__)

GROUP = "opfs.plugins"
BUILT_IN: Mapping[str, str] = {
    "file": "opfs.plugins.file.plugin:FilePlugin",
    "lxc": "opfs.plugins.lxc.plugin:LxcPlugin",
    "mesh": "opfs.plugins.mesh.plugin:MeshPlugin",
    "net": "opfs.plugins.net.plugin:NetPlugin",
    "openflow": "opfs.plugins.openflow.plugin:OpenFlowPlugin",
    "ovs": "opfs.plugins.ovs.plugin:OvsPlugin",
    "packagekit": "opfs.plugins.packagekit.plugin:PackagekitPlugin",
    "systemd": "opfs.plugins.systemd.plugin:SystemdPlugin",
    "wireguard": "opfs.plugins.wireguard.plugin:WireguardPlugin",
}
"""The plugins of this package, which also a checkout that was never installed has."""

_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")
_MEMBERS = tuple(member for member in vars(Plugin) if not member.startswith("_"))

ContextOf = Callable[[str], PluginContext]
"""What a plugin is built from, by the plugin's name."""


class UnavailablePlugin(ContractDefaults):
    """Stands in for a plugin that could not be loaded: it refuses everything and says why."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name  # type: ignore[misc]  # the class variable of a plugin is this one's own
        self.schema = {"type": "object"}
        self.version_hash = ""
        self.apply_timeout_s = 1.0
        self._reason = reason

    def why_unavailable(self) -> str:
        return self._reason

    def check(self, element: str, desired: Document) -> None:
        del element, desired
        raise self._refusal()

    async def observe(self, elements: object, *, desired: object = None) -> Mapping[str, Document]:
        del elements, desired
        return {}

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        del element, current, desired
        raise self._refusal()

    async def apply(self, action: Action) -> ApplyResult:
        del action
        raise self._refusal()

    def _refusal(self) -> Rejected:
        return Rejected(f"the plugin {self.name!r} cannot be used: {self._reason}")


class PluginRegistry(Mapping[str, Plugin]):
    """All plugins by name, unavailable ones included."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = {plugin.name: plugin for plugin in sorted(plugins, key=lambda plugin: plugin.name)}

    def __getitem__(self, name: str) -> Plugin:
        return self._plugins[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plugins)

    def __len__(self) -> int:
        return len(self._plugins)

    def require(self, name: str) -> Plugin:
        """The plugin of that name, working here; raises NotFound or, if it cannot work here, Rejected."""
        plugin = self._plugins.get(name)
        if plugin is None:
            near = difflib.get_close_matches(name, self._plugins, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self._plugins) or 'none'}"
            raise NotFound(f"there is no plugin {name!r}", hint=hint)
        reason = plugin.why_unavailable()
        if reason is not None:
            raise Rejected(f"the plugin {name!r} cannot be used on this host: {reason}")
        return plugin


def load_plugins(context_of: ContextOf, named: Sequence[str] = ()) -> PluginRegistry:
    """Build every plugin: built-in ones, installed ones, then `named`, each as "package.module:Class".

    The first to take a name keeps it. A later one is listed as unavailable under its specification, as is a
    plugin that fails to load; so a package cannot take the place of a built-in plugin.
    """
    found = {spec: name for name, spec in BUILT_IN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        found.setdefault(entry.value, entry.name)
    for spec in named:
        found.setdefault(spec, "")
    loaded: dict[str, Plugin] = {}
    for spec, name in found.items():
        plugin = _load(spec, name, context_of)
        if plugin.name in loaded:
            reason = f"{spec} calls itself {plugin.name!r}, and there is another plugin of that name"
            log.error("plugin %s: %s", spec, reason)
            plugin = UnavailablePlugin(spec, reason)
        loaded[plugin.name] = plugin
    return PluginRegistry(list(loaded.values()))


def _load(spec: str, name: str, context_of: ContextOf) -> Plugin:
    try:
        return build_plugin(spec, context_of)
    except OpfsError as error:
        reason = str(error)
    except Exception as error:  # a plugin is foreign code: whatever it raises must not stop the daemon
        log.exception("plugin %s", spec)
        reason = f"{spec} failed to load: {type(error).__name__}: {error}"
    log.error("plugin %s is unavailable: %s", spec, reason)
    return UnavailablePlugin(name or spec, reason)


def build_plugin(spec: str, context_of: ContextOf) -> Plugin:
    """Import, build and check one plugin. Raises InvalidRequest, and whatever the plugin's code raises."""
    if not _SPEC.match(spec):
        raise InvalidRequest(f"{spec!r} does not name a plugin", hint='write it as "package.module:Class"')
    module_name, _, class_name = spec.partition(":")
    plugin_class = getattr(import_module(module_name), class_name, None)
    if plugin_class is None:
        raise InvalidRequest(f"the module {module_name} has no class {class_name!r}")
    name = getattr(plugin_class, "name", None)
    if not isinstance(name, str) or not PLUGIN_NAME.match(name):
        raise InvalidRequest(
            f"{spec} calls itself {name!r}", hint="a plugin's name is 1 to 32 of a-z 0-9 - and starts with a letter"
        )
    if name == OWN_EVENTS:
        raise InvalidRequest(f"{spec} calls itself {name!r}", hint="events about opfs itself have that name")
    plugin = plugin_class.from_context(context_of(name))
    missing = [member for member in _MEMBERS if not hasattr(plugin, member)]
    if missing:
        raise InvalidRequest(f"{spec} is not a plugin: it lacks {', '.join(missing)}")
    check_schema(spec, plugin.schema)
    built: Plugin = plugin
    return built


def describe_plugin(plugin: Plugin) -> Mapping[str, object]:
    """What a plugin says of itself, for people who choose among plugins; JSON."""
    reason = plugin.why_unavailable()
    return {
        "name": plugin.name,
        "is_available": reason is None,
        "why_not": reason or "",
        "capabilities": dict(asdict(plugin.capabilities)),
        "apply_timeout_s": plugin.apply_timeout_s,
        "version_hash": plugin.version_hash,
    }


def check_schema(spec: str, schema: Mapping[str, Any]) -> None:
    """Raise InvalidRequest unless `schema` is JSON Schema 2020-12 that describes an object."""
    try:
        DocumentSchema(schema)
    except InvalidRequest as error:
        raise InvalidRequest(f"{spec}: {error}") from error
    if schema.get("type") != "object":
        raise InvalidRequest(f"the schema of {spec} does not describe an object", hint='say "type": "object"')
