"""The pages of the plugins explain every key of the schemas, and the documents in them are acceptable."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from opfs.core.schema import DocumentSchema
from opfs.plugins.reference import BEGIN, END, schema_of, with_tables
from opfs.plugins.registry import BUILT_IN

PAGES = sorted((Path(__file__).parents[2] / "docs/plugins").glob("*.md"))


def test_every_built_in_plugin_has_a_page():
    assert {page.stem for page in PAGES} == set(BUILT_IN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_are_current(page):
    command = f"python -m opfs.plugins.reference docs/plugins/{page.name}"
    assert page.read_text() == with_tables(page.read_text(), schema_of(page)), f"run: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_of_the_schema_is_in_the_table(page):
    table = page.read_text().partition(BEGIN)[2].partition(END)[0]
    schema = schema_of(page)
    keys = [key for key in schema["properties"] if not re.fullmatch(r"net[1-8]", key)]
    keys += [key for rule in schema.get("$defs", {}).values() for key in rule["properties"]]
    missing = [key for key in keys if f"`{key}`" not in table]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_documents_of_the_tour_fit_the_schema(page):
    schema = DocumentSchema(schema_of(page))
    documents = re.findall(rf"echo '(\{{.*?\}})' > state/{page.stem}/", page.read_text())
    assert documents
    for text in documents:
        schema.check(json.loads(text), text.encode())


def test_a_page_without_markers_is_an_error():
    with pytest.raises(ValueError, match="no lines"):
        with_tables("# page\n", {"properties": {}})
