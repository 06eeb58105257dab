"""What the documentation and the scripts say is so: commands exist, links lead somewhere, pages are current."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from opfs.cli import main
from opfs.cli.reference import reference

ROOT = Path(__file__).parents[2]


def _project_files():
    """The files of the project: those git tracks, or in an exported tree those that are no build output."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        skipped = {".venv", "build", "__pycache__"}
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        names = [
            str(path)
            for path in paths
            if not any(p in skipped or p.endswith((".egg-info", "_cache")) for p in path.parts)
        ]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


FILES = _project_files()
PAGES = [path for path in FILES if path.suffix == ".md"]


def _relative(path):
    return str(path.relative_to(ROOT))


def test_the_reference_of_the_command_line_is_current():
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run: python -m opfs.cli.reference > docs/cli.md"


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_commands_named_in_pages_exist(page):
    called = r"^\s*(?:[#$] )?(?:sudo )?(?:\.venv/bin/)?opfs ((?:-[\w-]+ \S+ )*[a-z][a-z-]*(?: [a-z][a-z-]*)?)"
    for words in re.findall(called, _code_of(page), re.MULTILINE):
        names = re.sub(r"-[\w-]+ \S+ ", "", words).split()
        command = main.get_command(click.Context(main), names[0])
        assert command is not None, f"{_relative(page)}: there is no 'opfs {names[0]}'"
        if isinstance(command, click.Group) and len(names) > 1:
            assert command.get_command(click.Context(command), names[1]), (
                f"{_relative(page)}: no 'opfs {' '.join(names)}'"
            )


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_scripts_named_in_pages_exist(page):
    for name in re.findall(r"(?<![\w/])(scripts/[a-z]+)\b", page.read_text()):
        assert (ROOT / name).is_file(), f"{_relative(page)} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{_relative(page)} links to {target}"


def _code_of(page):
    """The indented and fenced code of a page, and what stands between backticks."""
    text = page.read_text()
    blocks = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    return "\n".join([*blocks, *indented, *re.findall(r"`([^`\n]+)`", text)])


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_no_file_names_a_package_index_or_somebody_s_machine(path):
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    # written in two pieces each, or this file would name them
    hosts = ("py" + "pi.org", "python" + "hosted.org", "deb." + "debian.org", "archive." + "ubuntu.com")
    options = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links", "--trusted" + "-host")
    for forbidden in hosts + options:
        assert forbidden not in text, f"{_relative(path)} names {forbidden}"
    places = re.search(r"(?<![\w.])/(?:home/[a-z]|Users/[A-Z]|work/\w)", text)
    assert places is None, f"{_relative(path)} has the path {places and places[0]}"
