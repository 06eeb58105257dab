"""The `packagekit` plugin: packages, asked for, foretold, installed and removed by PackageKit.

Nothing is installed or removed beside what the plan named: what an action would do is asked first, and an action
that would remove more is refused. It keeps which packages opfs installed, one empty file each. Calls for different
packages may run concurrently; PackageKit takes one after the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import trio

from opfs.clients.dbus import SYSTEM_BUS, open_bus
from opfs.core.action import Action, ApplyResult, Difference, Document, StateDiff
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext, refuse
from opfs.plugins.packagekit.dpkg import Installed, read_packages
from opfs.plugins.packagekit.plan import PLUGIN, compare_package, plan_package
from opfs.plugins.packagekit.sightings import report_transactions
from opfs.plugins.packagekit.transactions import Info, Package, PackageError, PackageKit
from opfs.ports import Capabilities, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]+\Z")
"""Those of Debian, and those of other distributions but for the underscore."""
_SERVICE = "usr/share/dbus-1/system-services/org.freedesktop.PackageKit.service"


class PackagekitPlugin(ContractDefaults):
    """Packages as elements; `state_dir` holds the names of those that opfs installed."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(watch=True)

    def __init__(
        self, state_dir: Path, *, bus: str = SYSTEM_BUS, root: Path = Path("/"), timeout_s: float = 900.0
    ) -> None:
        super().__init__()
        self.apply_timeout_s = timeout_s + 30
        self._state_dir = state_dir
        self._bus = bus
        self._root = root
        self._packagekit = PackageKit(bus, timeout_s=timeout_s)

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Settings: `timeout_s`, how long one installation or removal may take: 900 unless given."""
        return cls(context.state_dir, timeout_s=float(context.settings.get("timeout_s", 900.0)))

    def why_unavailable(self) -> str | None:
        if not (self._root / _SERVICE).exists():
            return "PackageKit is not installed; apt-get install packagekit"
        return None

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        if not PACKAGE_NAME.match(element):
            refuse("", f"{element!r} cannot name a package", "use letters, digits and + - . and no architecture")
        ensure = desired.get("ensure", "present")
        if "version" in desired and ensure != "present":
            refuse("/version", f"a package that is to be {ensure} has no version to choose", "leave it out")

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_package(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        del element
        return tuple(compare_package(desired, observed))

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """Read what dpkg has; ask PackageKit what is newer, where a document wants that, and what an action would do.

        The last only for a single package, as before a plan. Without names: the packages that somebody asked for by
        name, not those that came along because others need them.
        """
        names = None if elements is None else {name for name in elements if PACKAGE_NAME.match(name)}
        ours, there = await trio.to_thread.run_sync(self._read_files)
        wanted = desired or {}
        asked = names or set()
        if there is not None and len(asked) == 1:
            asked = {name for name in asked if _may_change(there.get(name), name in ours, wanted.get(name))}
        elif there is not None:
            latest = {name for name, document in wanted.items() if document.get("ensure") == "latest"}
            asked = latest if names is None else latest & names
        packages: Sequence[Package] = await self._packagekit.resolve(asked)
        if there is None:
            packages = await self._packagekit.installed() if names is None else packages
            there = _as_installed(packages)
        if names is None:
            names = {name for name, package in there.items() if not package.is_automatic or package.unfinished}
        found = _described(sorted(names), there, packages, ours)
        if elements is not None and len(names) == len(asked) == 1:
            [name] = names
            await self._foretell(name, found, packages, wanted.get(name))
        return found

    def _read_files(self) -> tuple[frozenset[str], Mapping[str, Installed] | None]:
        try:
            ours = frozenset(path.name for path in self._state_dir.iterdir())
        except FileNotFoundError:
            ours = frozenset()
        return ours, read_packages(self._root)

    async def _foretell(
        self, name: str, found: dict[str, dict[str, Any]], packages: Sequence[Package], wanted: Document | None
    ) -> None:
        """Add what removing or installing the package would do to others."""
        now = found.get(name)
        if now is not None and (wanted is None or wanted.get("ensure") == "absent"):
            if wanted is None and now.get("origin") == "foreign":
                return  # it stays when its document goes
            try:
                foretold = await self._packagekit.foretell_removal(_choose(name, packages, now.get("installed")).id)
            except PackageError as error:
                if not error.is_refusal:
                    raise
                now["locked"] = error.words
                return
            others = [other for other in foretold.goes if other != name]
            if others:
                now["removes_with"] = others
        elif wanted is not None and wanted.get("ensure") != "absent" and packages:
            version = wanted.get("version") or (now or {}).get(
                "available" if wanted.get("ensure") == "latest" else "installed"
            )
            if now is not None and version == now.get("installed"):
                return
            foretold = await self._packagekit.foretell_install(_choose(name, packages, version).id)
            if foretold.goes:
                found[name] = {**(now or {"ensure": "absent"}), "replaces": list(foretold.goes)}

    # --- apply -----------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> ApplyResult:
        steps = {"install": self._install, "remove": self._remove}
        step = steps.get(action.step)
        if step is None or not PACKAGE_NAME.match(action.element):
            raise ApplyFailed(f"packagekit has no step {action.step!r} for {action.element!r}")
        return ApplyResult(action, await step(action.element, action.details))

    async def _install(self, name: str, details: Mapping[str, Any]) -> str:
        packages = await self._packagekit.resolve([name])
        is_broken = await self._is_broken(name)
        version: str | None = details["version"]
        now = next((package.version for package in packages if package.info == Info.INSTALLED), None)
        if now is not None and version in (None, now) and not is_broken:
            return f"{name} {now} was installed"
        if not packages:
            hint = "is the name right? are the package lists fresh? pkcon refresh"
            raise ApplyFailed(f"no repository of this host offers a package {name}", hint=hint)
        chosen = _choose(name, packages, version)
        foretold = await self._packagekit.foretell_install(chosen.id)
        if not is_broken and foretold.comes.get(name) != chosen.version:
            offered = ", ".join(sorted({package.version for package in packages}))
            raise ApplyFailed(f"no repository of this host offers {name} {chosen.version}", hint=f"there is: {offered}")
        _check_foretold(f"installing {name}", foretold.goes, details["replaces"])
        if details["ours"]:
            # Before, so that after a crash it is not taken for somebody else's.
            await trio.to_thread.run_sync(self._note, name)
        await self._packagekit.install(chosen.id)
        others = ", ".join(sorted(other for other in foretold.comes if other != name))
        return f"installed {name} {chosen.version}{f' and with it {others}' if others else ''}"

    async def _remove(self, name: str, details: Mapping[str, Any]) -> str:
        packages = await self._packagekit.resolve([name])
        is_there = await self._is_broken(name) or any(package.info == Info.INSTALLED for package in packages)
        gone: tuple[str, ...] = ()
        if is_there and packages:
            id = _choose(name, packages, None).id
            gone = (await self._packagekit.foretell_removal(id)).goes
            _check_foretold(f"removing {name}", [other for other in gone if other != name], details["with"])
            await self._packagekit.remove(id)
        await trio.to_thread.run_sync(lambda: (self._state_dir / name).unlink(missing_ok=True))
        return f"removed {', '.join(gone)}" if gone else f"{name} was not installed"

    async def _is_broken(self, name: str) -> bool:
        _, there = await trio.to_thread.run_sync(self._read_files)
        return name in (there or {}) and bool((there or {})[name].unfinished)

    def _note(self, name: str) -> None:
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._state_dir / name).touch(mode=0o600)

    # --- watch -----------------------------------------------------------------------------------------

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Report changes of packages: by whoever asks PackageKit for them, with who that is, and by apt."""
        async with open_bus(self._bus) as bus:
            await report_transactions(bus, report)
        raise ApplyFailed("the message bus closed the connection")


def _may_change(there: Installed | None, is_ours: bool, wanted: Document | None) -> bool:
    """Whether a plan may follow that PackageKit is to be asked about; without a document it may be a removal."""
    if wanted is None:
        return there is not None and is_ours
    if wanted.get("ensure") == "absent":
        return there is not None
    version = wanted.get("version", there and there.version)
    return there is None or bool(there.unfinished) or wanted.get("ensure") == "latest" or version != there.version


def _as_installed(packages: Sequence[Package]) -> Mapping[str, Installed]:
    """The installed ones as PackageKit has them, for a host without dpkg."""
    return {
        package.name: Installed(package.version, package.is_automatic)
        for package in packages
        if package.info == Info.INSTALLED
    }


def _described(
    names: Sequence[str], there: Mapping[str, Installed], packages: Sequence[Package], ours: frozenset[str]
) -> dict[str, dict[str, Any]]:
    """Documents of those among `names` that are there."""
    offered = {package.name: package.version for package in packages if package.info == Info.AVAILABLE}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        package = there.get(name)
        if package is None:
            continue
        document: dict[str, Any] = {"ensure": "present", "installed": package.version}
        if offered.get(name, package.version) != package.version:
            document["available"] = offered[name]
        if package.unfinished:
            document["broken"] = package.unfinished
        if name not in ours:
            document["origin"] = "foreign"
        found[name] = document
    return found


def _choose(name: str, packages: Sequence[Package], version: str | None) -> Package:
    """The package to act on: the wanted version, else the installed one, else what is offered."""
    for package in packages:
        if package.version == version:
            return package
    best = next((package for package in packages if package.info == Info.INSTALLED), packages[0])
    if version is None:
        return best
    # A version that is not the one offered by default is found by its number alone.
    return Package(Info.AVAILABLE, name, version, best.architecture, "")


def _check_foretold(doing: str, goes: Collection[str], agreed: Collection[str]) -> None:
    more = sorted(set(goes) - set(agreed))
    if more:
        hint = "say what is to become of those first, in their own documents, or write this one again"
        raise ApplyFailed(f"{doing} would remove {', '.join(more)}", hint=hint)
