"""A desired state of operation-dbus, the proposal that opfs grew from, as documents of opfs; pure.

What it says is taken key by key, and nothing is dropped in silence: each key that has no equivalent here is a remark
with its JSON pointer. Names of plugins and keys are those of its state.json. Whether the documents are acceptable is
for the plugins to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.core.names import ElementId, check_element_name
from opfs.core.position import join_pointer
from opfs.core.printable import show_json
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_EQUIVALENT = "has no equivalent"
_SWITCH_PORTS = "ports of Open vSwitch belong to the bridge that lists them"


@dataclass(frozen=True, slots=True)
class Remark:
    """A key of the state that the documents do not hold as it was, and why."""

    pointer: str
    said: str


@dataclass(slots=True)
class Converted:
    """The documents, in the order found, and what could not be taken over."""

    documents: dict[ElementId, dict[str, Any]] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def document(self, plugin: str, element: str, pointer: str) -> dict[str, Any]:
        """The document of an element, made where there is none; a name that no element can have is a remark."""
        try:
            check_element_name(element)
        except InvalidRequest as error:
            self.remarks.append(Remark(pointer, f"is left out: {error.reason}"))
            return {}
        return self.documents.setdefault(ElementId(plugin, element), {})


def convert_state(state: Any) -> Converted:
    """The documents that a state asks for. Raises InvalidRequest for what is no state of operation-dbus."""
    converted = Converted()
    if isinstance(state, Mapping) and "plugins" not in state:
        # the file of a single plugin
        names = [name for key, name in _SINGLE.items() if key in state]
        state = {"plugins": {name: state for name in names[:1]}}
        below: tuple[str, ...] = ()
    else:
        below = ("plugins",)
    if not isinstance(state, Mapping) or not isinstance(state.get("plugins"), Mapping) or not state["plugins"]:
        raise InvalidRequest(
            "this is no state of operation-dbus", hint='it begins {"version": 1, "plugins": {"net": {…}}}'
        )
    for key in state:
        if key not in ("plugins", "version"):
            converted.remarks.append(Remark(join_pointer([key]), _NO_EQUIVALENT))
    if state.get("version", 1) != 1:
        converted.remarks.append(Remark("/version", f"is {show_json(state['version'], 20)}; read as version 1"))
    for name, fields in state["plugins"].items():
        path = (*below, name) if below else ()
        plugin = _PLUGINS.get(name)
        if plugin is None:
            converted.remarks.append(Remark(join_pointer(path), "is no plugin that opfs has"))
        else:
            reader = _Reader(converted, path, fields)
            plugin(reader)
            reader.finish()
    return converted


class _Reader:
    """An object of the state whose keys are taken one by one; those left at the end are remarks."""

    def __init__(self, converted: Converted, path: tuple[str | int, ...], fields: Any) -> None:
        self.converted = converted
        self.path = path
        self._fields: dict[str, Any] = dict(fields) if isinstance(fields, Mapping) else {}
        if not isinstance(fields, Mapping):
            self.remark("is no object")

    def take(self, key: str, default: Any = None) -> Any:
        """The value, taken away; null is as good as none."""
        value = self._fields.pop(key, None)
        return default if value is None else value

    def inner(self, key: str) -> _Reader:
        """The object under a key, empty where there is none."""
        return _Reader(self.converted, (*self.path, key), self.take(key, {}))

    def each(self, key: str) -> list[_Reader]:
        """The objects in the array, or in the map, under a key."""
        value = self.take(key, [])
        if isinstance(value, Mapping):
            return [_Reader(self.converted, (*self.path, key, name), item) for name, item in value.items()]
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [_Reader(self.converted, (*self.path, key, index), item) for index, item in enumerate(value)]
        self.remark(_NO_EQUIVALENT, key)
        return []

    def remark(self, said: str, *below: str | int) -> None:
        self.converted.remarks.append(Remark(join_pointer((*self.path, *below)), said))

    def move(self, document: dict[str, Any], *keys: str, **renamed: str) -> None:
        """Take keys over as they are, or under the names that opfs has for them (old=new)."""
        for old, new in [*((key, key) for key in keys), *renamed.items()]:
            value = self.take(old)
            if value is not None:
                document[new] = value

    def refuse(self, **reasons: str) -> None:
        """Remark on keys, each with its own reason."""
        for key, reason in reasons.items():
            if self.take(key) is not None:
                self.remark(reason, key)

    def finish(self) -> None:
        """Remark on what nobody took."""
        for key in self._fields:
            self.remark(_NO_EQUIVALENT, key)
        self._fields = {}


# --- net and ovs ------------------------------------------------------------------------------------------------


def _net(reader: _Reader) -> None:
    interfaces = reader.each("interfaces")
    pending: list[tuple[_Reader, list[str], str]] = []
    listed: set[str] = set()
    orphans: list[tuple[_Reader, str]] = []
    for interface in interfaces:
        name, kind = str(interface.take("name", "")), interface.take("type", "ethernet")
        ports = [str(port) for port in interface.take("ports", [])]
        if kind == "ovs-bridge":
            listed |= set(ports)
            _switch(interface, name, ports)
        elif kind == "ovs-port":
            orphans.append((interface, name))
            _addresses(interface, "net", name, {"type": "other"}, after=None, only_if_set=True)
        elif kind in ("bridge", "ethernet"):
            _addresses(interface, "net", name, {"type": kind})
            interface.refuse(controller="only bridges of Open vSwitch have a controller")
            pending.append((interface, ports, name))
        else:
            interface.remark(f"the type {show_json(kind, 40)} has no equivalent", "type")
        _properties(interface, "net", name)
        interface.finish()
    for interface, ports, name in pending:
        for index, port in enumerate(ports):
            document = reader.converted.document("net", port, join_pointer((*interface.path, "ports", index)))
            if "type" not in document:
                document["type"] = "ethernet"
                interface.remark(f"{port} is taken for an ethernet interface that is there by itself", "ports", index)
            document["master"] = name
    for interface, name in orphans:
        if name not in listed:
            interface.remark(_SWITCH_PORTS)


def _switch(interface: _Reader, name: str, ports: Sequence[str]) -> None:
    """A bridge of Open vSwitch; its addresses are those of the interface that the switch makes under its name."""
    document = interface.converted.document("ovs", name, join_pointer(interface.path))
    if ports:
        document["ports"] = {port: {} for port in ports}
    controller = interface.take("controller")
    if controller is not None:
        document["controller"] = [controller]
    _addresses(interface, "net", name, {"type": "other", "state": "up"}, after=f"ovs/{name}", only_if_set=True)


def _addresses(
    interface: _Reader,
    plugin: str,
    name: str,
    start: Mapping[str, Any],
    after: str | None = None,
    *,
    only_if_set: bool = False,
) -> None:
    fields: dict[str, Any] = {}
    ipv4, ipv6 = interface.inner("ipv4"), interface.inner("ipv6")
    if ipv4.take("enabled", True) is False:
        fields["addresses"] = []
    if ipv4.take("dhcp"):
        ipv4.remark("opfs runs no DHCP client: declare the unit of one under systemd", "dhcp")
    for one in ipv4.each("address"):
        fields.setdefault("addresses", []).append(f"{one.take('ip', '')}/{one.take('prefix', '')}")
        one.finish()
    gateway = ipv4.take("gateway")
    if gateway is not None:
        fields["routes"] = [{"to": "default", "via": gateway}]
    ipv4.refuse(dns="name servers are a file: declare /etc/resolv.conf under file")
    if ipv6.take("enabled"):
        ipv6.remark("the kernel gives link-local addresses by itself", "enabled")
    if ipv6.take("dhcp"):
        ipv6.remark("opfs runs no DHCP client", "dhcp")
    ipv4.finish()
    ipv6.finish()
    if fields or not only_if_set:
        document = interface.converted.document(plugin, name, join_pointer(interface.path))
        document |= {**start, **fields, **({"$after": [after]} if after else {})}


def _properties(interface: _Reader, plugin: str, name: str) -> None:
    properties = interface.inner("properties")
    fields: dict[str, Any] = {}
    properties.move(fields, "mtu", "mac", mac_address="mac", description="description")
    properties.finish()
    if fields:
        document = interface.converted.documents.get(ElementId(plugin, name))
        if document is None:
            for key in fields:
                interface.remark(_NO_EQUIVALENT, "properties", key)
        else:
            document |= fields
    interface.refuse(property_schema="says what was observed, which opfs knows from the plugin's schema")


# --- lxc --------------------------------------------------------------------------------------------------------


def _lxc(reader: _Reader) -> None:
    for container in reader.each("containers"):
        document = container.converted.document("lxc", str(container.take("id", "")), join_pointer(container.path))
        network: dict[str, Any] = {}
        if bridge := container.take("bridge"):
            network["bridge"] = bridge
        if container.take("veth"):
            container.remark("the name of the host's end is chosen when the container starts", "veth")
        running = container.take("running")
        if running is not None:
            document["state"] = "running" if running else "stopped"
        properties = container.inner("properties")
        properties.move(
            document, "hostname", "nameserver", "searchdomain", "description", "tags", template="ostemplate"
        )
        for key in ("memory", "swap", "cores"):
            value = properties.take(key)
            if value is not None:
                document[key] = int(value) if isinstance(value, str) and value.isdecimal() else value
        for key in ("unprivileged", "onboot", "protection"):
            value = properties.take(key)
            if value is not None:
                document[key] = _boolean(value)
        features = properties.take("features")
        if features is not None:
            document["features"] = _features(features)
        firewall = properties.take("firewall")
        if firewall is not None:
            network["firewall"] = _boolean(firewall)
        properties.move(network, "ip", "gw", gateway="gw")
        if properties.take("network_type", "bridge") not in ("bridge", "veth"):
            properties.remark("only interfaces on a bridge are known", "network_type")
        properties.refuse(
            golden_image="name an image as the template: ostemplate",
            storage="where containers lie is configured for the plugin",
            rootfs_size="a container takes the space that it needs",
            firstboot_script="declare the script under file, and run it by a unit of the guest",
        )
        if network:
            if "bridge" in network:
                document["net0"] = network
            else:
                container.remark("an interface without a bridge has no equivalent", "bridge")
        properties.finish()
        container.finish()


def _boolean(value: Any) -> Any:
    """Proxmox's 0 and 1 as what they mean; all else as it is, for the schema to judge."""
    return {0: False, 1: True, "0": False, "1": True}.get(value, value) if isinstance(value, int | str) else value


def _features(value: Any) -> Any:
    """`nesting=1,keyctl=1`, as Proxmox writes it, as an object."""
    if not isinstance(value, str):
        return value
    pairs = (part.partition("=") for part in value.split(",") if part)
    return {key.strip(): _boolean(found.strip() or "1") for key, _, found in pairs}


# --- systemd and packagekit -------------------------------------------------------------------------------------


def _systemd(reader: _Reader) -> None:
    for unit in reader.each("units"):
        document = unit.converted.document("systemd", str(unit.path[-1]), join_pointer(unit.path))
        state = unit.take("active_state")
        if state in ("active", "inactive"):
            document["active"] = state == "active"
        elif state is not None:
            unit.remark("only active and inactive can be asked for", "active_state")
        unit.move(document, "enabled", "masked")
        properties = unit.take("properties")
        if properties:
            document["properties"] = properties
        unit.finish()


def _packagekit(reader: _Reader) -> None:
    if reader.take("version", 1) != 1:
        reader.remark("is read as version 1", "version")
    for package in reader.each("packages"):
        document = package.converted.document("packagekit", str(package.path[-1]), join_pointer(package.path))
        ensure = package.take("ensure", "installed")
        document["ensure"] = {"installed": "present", "removed": "absent"}.get(ensure, ensure)
        package.move(document, "version")
        package.refuse(provider="PackageKit knows which package manager the host has")
        package.finish()


_PLUGINS: Mapping[str, Callable[[_Reader], None]] = {
    "net": _net,
    "lxc": _lxc,
    "systemd": _systemd,
    "packagekit": _packagekit,
}
_SINGLE = {"interfaces": "net", "containers": "lxc", "units": "systemd", "packages": "packagekit"}
