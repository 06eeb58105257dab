"""The pages of the plugins explain every key of the schemas, and the documents in them are acceptable."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from opfs.core.outline import outline
from opfs.core.schema import DocumentSchema
from opfs.errors import InvalidRequest
from opfs.plugins.contract import PluginContext
from opfs.plugins.reference import BEGIN, END, key_tables, schema_of, with_tables
from opfs.plugins.registry import BUILT_IN, build_plugin

ALL_PAGES = sorted((Path(__file__).parents[2] / "docs/plugins").glob("*.md"))
PAGES = [page for page in ALL_PAGES if BEGIN in page.read_text()]
"""Those about one plugin; the others are about plugins as such."""


def test_every_built_in_plugin_has_a_page():
    assert {page.stem for page in PAGES} == set(BUILT_IN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_are_current(page):
    command = f"python -m opfs.plugins.reference docs/plugins/{page.name}"
    assert page.read_text() == with_tables(page.read_text(), schema_of(page)), f"run: {command}"


def _all_keys(keys):
    for key in keys:
        yield key
        yield from _all_keys(key.keys)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_is_in_the_tables_and_explained(page):
    table = page.read_text().partition(BEGIN)[2].partition(END)[0]
    for key in _all_keys(outline(schema_of(page)).keys):
        listed = key.name.replace(" to ", "` to `").replace("|", "\\|")
        assert f"| `{listed}` |" in table
        assert key.description, f"{key.name} has no description"


def test_objects_arrays_maps_and_alternatives_have_tables_of_their_own():
    network = {
        "type": "object",
        "required": ["bridge"],
        "properties": {"bridge": {"type": "string", "description": "Where.", "examples": ["br0"]}},
    }
    schema = {
        "type": "object",
        "$defs": {"network": network},
        "properties": {
            **{f"net{n}": {"$ref": "#/$defs/network", "description": "One."} for n in range(4)},
            "more": {"type": "array", "items": {"$ref": "#/$defs/network"}, "description": "Others."},
            "by": {"type": "object", "additionalProperties": network, "description": "By name."},
            "port": {"oneOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"const": "any"}], "default": "any"},
            "key": {"type": "object", "x-secret": True, "description": "Private."},
            "load": {"type": "number", "readOnly": True, "description": "How busy."},
        },
    }
    assert key_tables(schema).splitlines() == [
        "| key | value | meaning |",
        "|---|---|---|",
        "| `net0` to `net3` | object | One. |",
        "| `more` | array of object | Others. |",
        "| `by` | object | By name. |",
        '| `port` | `integer` or `"any"` (1 to 9) | Default: `"any"`. |',
        '| `key` | `{"$secret": name}` | Private. Secret: the document only names it. |',
        "| `load` | number | How busy. Reported only. |",
        "",
        "### Keys of `net0` to `net3`, `more[]`, `by.<name>`",
        "",
        "| key | value | meaning |",
        "|---|---|---|",
        '| `bridge` | string, e.g. `"br0"` | Where. **Required.** |',
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_documents_of_the_tour_are_accepted(page, tmp_path):
    """But those that the tour shows being refused, which must not."""
    schema = DocumentSchema(schema_of(page))
    plugin = build_plugin(BUILT_IN[page.stem], lambda name: PluginContext(tmp_path / name))
    written = re.findall(rf"echo '(\{{.*?\}})' > state/{page.stem}/(\S+)\.json.*\n(.*)", page.read_text())
    assert written
    for text, element, answer in written:
        if "write error: Invalid argument" in answer:
            with pytest.raises(InvalidRequest):
                check_wholly(schema, plugin, element, text)
        else:
            # what the plugin itself accepts may depend on the host
            schema.check(json.loads(text), text.encode())


def check_wholly(schema, plugin, element, text):
    schema.check(json.loads(text), text.encode())
    plugin.check(element, json.loads(text))


def test_a_page_without_markers_is_an_error():
    with pytest.raises(ValueError, match="no lines"):
        with_tables("# page\n", {"properties": {}})
