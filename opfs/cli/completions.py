"""What a shell may complete: plugins, elements and blocks of the mounted tree.

Called by the shell at every press of Tab, so it only lists directories, answers nothing where no daemon does, and
never fails: an error message would land in the line that is being typed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pathlib import Path

    import click

_BLOCKS_SHOWN = 30
_ELEMENTS_SHOWN = 2000


def complete_plugins(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of plugins."""
    return [CompletionItem(name) for name in _names(context, "state") if name.startswith(incomplete)]


def complete_elements(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Declared elements, as plugin/element."""
    return _elements(context, "state", incomplete)


def complete_undeclared(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Elements that the plugin named before finds and nobody declared."""
    plugin = context.params.get("plugin")
    names = _names(context, f"undeclared/{plugin}") if isinstance(plugin, str) else []
    found = [name.removesuffix(".json") for name in names]
    return [CompletionItem(name) for name in found if name.startswith(incomplete)][:_ELEMENTS_SHOWN]


def complete_places(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Plugins and elements: where a command takes either."""
    return complete_plugins(context, parameter, incomplete) + complete_elements(context, parameter, incomplete)


def complete_past_elements(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Elements that there ever were, as plugin/element."""
    plugin, slash, _ = incomplete.partition("/")
    plugins = [plugin] if slash else [name for name in _names(context, "history") if name.startswith(plugin)]
    found = [f"{name}/{element}" for name in plugins for element in _names(context, f"history/{name}")]
    return [CompletionItem(id) for id in found if id.startswith(incomplete)][:_ELEMENTS_SHOWN]


def complete_blocks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """HEAD, its last ancestors, labels, yesterday, and the newest blocks."""
    blocks = [name for name in _names(context, "chain") if name[:1].isdigit()]
    named = [name for name in _names(context, "at") if " " not in name]
    ancestors = (f"HEAD~{back}" for back in range(1, min(10, len(blocks))))
    words = ["HEAD", *ancestors, *named, *reversed(blocks[-_BLOCKS_SHOWN:])]
    return [CompletionItem(word) for word in words if word.startswith(incomplete)] if blocks else []


def complete_moments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Times and labels that /at lists; heights are quicker typed than chosen."""
    return [CompletionItem(name) for name in _names(context, "at") if name.startswith(incomplete)]


def complete_filter(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Values of the search filter that the option is named after, as /search lists them."""
    from opfs.core.pathtext import decode_text

    prefix = f"{parameter.name}:"
    values = [decode_text(name.removeprefix(prefix)) for name in _names(context, "search") if name.startswith(prefix)]
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def complete_labels(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Labels."""
    from opfs.core.label import is_label

    found = [name for name in _names(context, "at") if is_label(name)]
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _elements(context: click.Context, below: str, incomplete: str) -> list[CompletionItem]:
    plugin, slash, _ = incomplete.partition("/")
    plugins = [plugin] if slash else [name for name in _names(context, below) if name.startswith(plugin)]
    found = [
        f"{name}/{file.removesuffix('.json')}"
        for name in plugins
        for file in _names(context, f"{below}/{name}")
        if file.endswith(".json") and not file.startswith((".", "#", "~", "_"))
    ]
    return [CompletionItem(id) for id in found if id.startswith(incomplete)][:_ELEMENTS_SHOWN]


def _names(context: click.Context, directory: str) -> list[str]:
    try:
        return sorted(os.listdir(_mount(context) / directory))
    except Exception:
        return []  # nothing to complete, whatever the reason


def _mount(context: click.Context) -> Path:
    from opfs.cli.command import flags_of
    from opfs.config import load_config

    return load_config(flags_of(context)).mount
