"""The table of a plugin's keys for its page in docs/plugins, made from its schema.

`python -m opfs.plugins.reference docs/plugins/*.md` puts the tables into the pages, between the two marker
lines; a test fails while a page differs. Synchronous; reads the schemas of the built-in plugins only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.plugins.contract import load_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BEGIN = "<!-- keys: made from schema.json by python -m opfs.plugins.reference -->"
END = "<!-- end of keys -->"


def key_tables(schema: Mapping[str, Any]) -> str:
    """Markdown: the document's keys, then those of each object in it."""
    parts = [_table(schema, schema.get("required", []))]
    for name, rule in schema.get("$defs", {}).items():
        parts.append(f"### Keys of a {name}\n\n" + _table(rule, rule.get("required", [])))
    return "\n\n".join(parts)


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


def _table(schema: Mapping[str, Any], required: list[str]) -> str:
    rows = ["| key | value | meaning |", "|---|---|---|"]
    for key, rule in _grouped(schema):
        needed = " **Required.**" if key in required else ""
        default = f" Default: `{json.dumps(rule['default'])}`." if "default" in rule else ""
        rows.append(f"| `{key}` | {_value(rule)} | {rule['description']}{needed}{default} |")
    return "\n".join(rows)


def _grouped(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The properties; of numbered ones that share a definition (net0 to net9) only the first, as a range."""
    numbered = [key for key, rule in schema["properties"].items() if "$ref" in rule]
    for key, rule in schema["properties"].items():
        if key not in numbered:
            yield key, rule
        elif key == numbered[0]:
            yield f"{key}` to `{numbered[-1]}", rule
    for pattern, rule in schema.get("patternProperties", {}).items():
        yield pattern, rule


def _value(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return " or ".join(f"`{json.dumps(value)}`" for value in rule["enum"])
    kind = rule.get("type", "object")
    examples = rule.get("examples", [])
    return f"{kind}, e.g. `{json.dumps(examples[0], ensure_ascii=False)}`" if examples else str(kind)


def main(pages: list[str]) -> None:
    for name in pages:
        page = Path(name)
        page.write_text(with_tables(page.read_text(), schema_of(page)))


if __name__ == "__main__":
    main(sys.argv[1:])
