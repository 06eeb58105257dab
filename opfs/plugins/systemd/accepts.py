"""What a document of a unit may say beyond its schema; pure but for the settings that the host's systemd lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.plugins.contract import refuse
from opfs.plugins.systemd.directives import known_settings
from opfs.plugins.systemd.unitfile import (
    LIMITED,
    SECTIONS,
    UNIT_NAME,
    Setting,
    UnitSyntaxError,
    check_text,
    is_template,
    kind_of,
    read_settings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.action import Document

LIMIT_SETTINGS: Mapping[str, str] = {
    "CPUWeight": "CPUWeight",
    "CPUQuota": "CPUQuotaPerSecUSec",
    "IOWeight": "IOWeight",
    "MemoryMin": "MemoryMin",
    "MemoryLow": "MemoryLow",
    "MemoryHigh": "MemoryHigh",
    "MemoryMax": "MemoryMax",
    "MemorySwapMax": "MemorySwapMax",
    "TasksMax": "TasksMax",
}
"""What `properties` may name: by the setting that a unit file calls it."""

_INSTALLS = frozenset({"WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also"})
_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})


def check_document(element: str, desired: Document) -> None:
    """Raise InvalidRequest for what the schema cannot say."""
    if not UNIT_NAME.match(element):
        kinds = ", ".join(f".{kind}" for kind in SECTIONS)
        near = f"say {element}.service, if that is what you mean; " if "." not in element else ""
        refuse("", f"{element!r} is not the full name of a unit", f"{near}its kind is one of {kinds}")
    settings = _check_texts(element, desired)
    if is_template(element):
        for key in ("active", "properties"):
            if desired.get(key):
                hint = f"name an instance, e.g. {element.replace('@.', '@one.')}"
                refuse(f"/{key}", f"{element} is a template and does not run itself", hint)
    if desired.get("properties") and kind_of(element) not in LIMITED:
        refuse("/properties", f"a .{kind_of(element)} runs no processes that could be limited", "leave it out")
    if desired.get("masked"):
        for key in ("unit", "active", "enabled"):
            if desired.get(key):
                refuse(f"/{key}", "a masked unit is one that cannot be started", f"leave out masked, or {key}")
    if "unit" in desired:
        _check_install(desired, settings)
        _check_oneshot(desired, settings)


def _check_texts(element: str, desired: Document) -> list[Setting]:
    """The settings of all texts."""
    texts = {"/unit": desired["unit"]} if "unit" in desired else {}
    texts |= {f"/dropins/{name}": text for name, text in desired.get("dropins", {}).items()}
    settings: list[Setting] = []
    for pointer, text in texts.items():
        if not text.strip():
            refuse(
                pointer, "systemd takes an empty file for a masked unit", "write at least one section, or say masked"
            )
        try:
            text.encode("utf-8")
            check_text(element, text, known_settings(), is_dropin=pointer != "/unit")
            settings += read_settings(text)
        except UnicodeEncodeError as error:
            refuse(pointer, f"character {error.start + 1} is half of a surrogate pair", "write both halves or neither")
        except UnitSyntaxError as error:
            refuse(pointer, str(error), error.hint)
    return settings


def _check_install(desired: Document, settings: list[Setting]) -> None:
    if desired.get("enabled") and not any(
        setting.key in _INSTALLS for setting in settings if setting.section == "Install"
    ):
        refuse(
            "/enabled", "the unit does not say in what it is enabled", "add [Install] with WantedBy=multi-user.target"
        )


def _check_oneshot(desired: Document, settings: list[Setting]) -> None:
    own = {setting.key: setting.value for setting in settings if setting.section == "Service"}
    if desired.get("active") and own.get("Type") == "oneshot" and own.get("RemainAfterExit", "").lower() not in _TRUE:
        refuse("/active", "a oneshot unit is over as soon as it has run", "add RemainAfterExit=yes to it")
