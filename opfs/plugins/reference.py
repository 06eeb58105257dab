"""The tables of a plugin's keys for its page in docs/plugins, made from its schema.

`python -m opfs.plugins.reference docs/plugins/*.md` puts the tables into the pages, between the two marker
lines; a test fails while a page differs. A page without the markers is left alone: it is not about one plugin.
Synchronous; reads the schemas of the built-in plugins only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.core.outline import outline, shown_default
from opfs.plugins.contract import load_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opfs.core.outline import Key

BEGIN = "<!-- keys: made from schema.json by python -m opfs.plugins.reference -->"
END = "<!-- end of keys -->"

_EXAMPLE_SHOWN = 100
_MARKS = {
    "required": "**Required.**",
    "secret": "Secret: the document only names it.",
    "read-only": "Reported only.",
    "volatile": "Changes by itself: no drift.",
}


def key_tables(schema: Mapping[str, Any]) -> str:
    """Markdown: the document's keys, then those of each object in it."""
    tables = [_table(outline(schema).keys)]
    tables += [f"### Keys of {names}\n\n{table}" for table, names in _inner_tables(outline(schema).keys).items()]
    return "\n\n".join(tables)


def with_tables(page: str, schema: Mapping[str, Any]) -> str:
    """The page with its tables made anew; raises ValueError if it has no markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{key_tables(schema)}\n\n{END}{after}"


def schema_of(page: Path) -> Mapping[str, Any]:
    """The schema that the page `docs/plugins/<plugin>.md` is about."""
    return load_schema(Path(__file__).parent / page.stem)


def _inner_tables(keys: Sequence[Key]) -> Mapping[str, str]:
    """The tables of the objects below `keys`, each once, with the names of all who hold such an object."""
    tables: dict[str, list[str]] = {}
    for path, key in _holders(keys, ""):
        tables.setdefault(_table(key.keys), []).append(path)
    return {table: ", ".join(paths) for table, paths in tables.items()}


def _holders(keys: Sequence[Key], prefix: str) -> Iterator[tuple[str, Key]]:
    for key in keys:
        if key.keys:
            first, to, last = key.name.partition(" to ")
            yield f"`{prefix}{first}{key.holds}`" + (f" to `{prefix}{last}{key.holds}`" if to else ""), key
            yield from _holders(key.keys, f"{prefix}{first}{key.holds}.")


def _table(keys: Sequence[Key]) -> str:
    rows = ["| key | value | meaning |", "|---|---|---|"]
    for key in keys:
        name = "` to `".join(key.name.split(" to "))
        rows.append(f"| `{_cell(name)}` | {_value(key)} | {_meaning(key)} |")
    return "\n".join(rows)


def _value(key: Key) -> str:
    is_choice = '"' in key.value and not key.is_secret
    value = " or ".join(f"`{word}`" if is_choice else word for word in key.value.split(" or "))
    if key.is_secret:
        value = f"`{value}`"
    text = _cell(f"{value} ({key.limits})" if key.limits else value)
    if not key.examples or is_choice or key.is_secret:
        return text
    example = json.dumps(key.examples[0], ensure_ascii=False)
    return text if len(example) > _EXAMPLE_SHOWN else f"{text}, e.g. `{_cell(example)}`"


def _meaning(key: Key) -> str:
    marks = [_MARKS[mark] for mark in key.marks if not key.description.startswith(_MARKS[mark].rstrip("."))]
    default = [f"Default: `{_cell(shown_default(key))}`."] if shown_default(key) else []
    return _cell(" ".join([key.description, *marks, *default]).strip())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(pages: list[str]) -> None:
    for name in pages:
        page = Path(name)
        text = page.read_text()
        if BEGIN in text:
            page.write_text(with_tables(text, schema_of(page)))


if __name__ == "__main__":
    main(sys.argv[1:])
