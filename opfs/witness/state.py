"""What a witness keeps on disk: its keys, and for every log the newest checkpoint it cosigned.

    key             0600: one private key a line (opfs.core.notekeys)
    lock            held by the process that serves
    logs/<hash>     the newest checkpoint cosigned of the log whose origin has that SHA-256, as it was sent
    forks/<hash>    two checkpoints of one size and two roots: the log's own proof against itself

Keys and checkpoints lie in one directory on purpose: a witness that lost its memory would sign what contradicts it,
so whoever loses one loses both, and makes a new witness. Blocks; `keep` and `keep_fork` run in a worker thread, one
call for a log at a time.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from opfs.core.note import parse_checkpoint, parse_note
from opfs.core.notekeys import SEED_BYTES, Kind, Signer
from opfs.errors import IntegrityError, InvalidRequest, PoolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.core.note import Checkpoint

_KEY = "key"
_LOCK = "lock"
_LOGS = "logs"
_FORKS = "forks"


def create_state(directory: Path, name: str) -> tuple[Signer, ...]:
    """Make a witness called `name`, with new keys, in a directory that is new or empty; returns its keys.

    Raises InvalidRequest for a directory that holds something, or a name no key can have.
    """
    # Two kinds of signature, so that a log may wait for the one that a quantum computer does not forge.
    signers = tuple(Signer(name, kind, secrets.token_bytes(SEED_BYTES)) for kind in (Kind.COSIGNATURE, Kind.ML_DSA_44))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.listdir(directory):
        raise InvalidRequest(f"{directory} is not empty", hint="a witness's keys are never replaced; make another one")
    directory.chmod(0o700)
    for part in (_LOGS, _FORKS):
        (directory / part).mkdir(mode=0o700)
    # After this line: a directory without a key; it serves nothing and must be removed by hand.
    _write(directory / _KEY, "".join(f"{signer.secret}\n" for signer in signers).encode())
    return signers


@contextmanager
def open_state(directory: Path) -> Iterator[WitnessState]:
    """Lock and read a witness's directory for serving.

    Raises PoolError where another process serves it, IntegrityError where what it keeps cannot be read: a
    witness that does not know what it signed must not sign.
    """
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _no_witness(directory, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PoolError(f"another process serves the witness in {directory}") from None
        yield WitnessState(directory, load_signers(directory), load_checkpoints(directory))
    finally:
        os.close(lock)


def load_signers(directory: Path) -> tuple[Signer, ...]:
    """The witness's keys; raises InvalidRequest where they are missing or others can read them."""
    path = directory / _KEY
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise InvalidRequest(f"others than its owner may read {path}", hint=f"chmod 600 {path}")
            return tuple(Signer.parse(line) for line in file)
    except OSError as error:
        raise _no_witness(directory, error) from error


def load_checkpoints(directory: Path) -> dict[str, Checkpoint]:
    """The newest checkpoint cosigned of every log, by origin."""
    checkpoints = {}
    try:
        names = os.listdir(directory / _LOGS)
    except OSError as error:
        raise _no_witness(directory, error) from error
    for name in names:
        if name.endswith(_UNFINISHED):
            continue  # a crash left it before it counted; the next `keep` of that log replaces it
        path = directory / _LOGS / name
        try:
            checkpoint = parse_checkpoint(parse_note(path.read_bytes()).text)
        except IntegrityError as error:
            raise IntegrityError(
                f"{path} is damaged: {error}", hint="a witness that forgot must be replaced"
            ) from error
        if _file_name(checkpoint.origin) != name:
            raise IntegrityError(f"{path} is of the log {checkpoint.origin}, which belongs elsewhere")
        checkpoints[checkpoint.origin] = checkpoint
    return checkpoints


def load_forked(directory: Path) -> set[str]:
    """The origins of the logs that were caught signing two histories."""
    paths = (directory / _FORKS).glob("*")
    return {path.read_text().partition("\n")[0] for path in paths if not path.name.endswith(_UNFINISHED)}


class WitnessState:
    """An open, locked directory; `newest` is what it holds."""

    def __init__(self, directory: Path, signers: tuple[Signer, ...], newest: dict[str, Checkpoint]) -> None:
        self.signers = signers
        self.newest = newest
        self._directory = directory

    def keep(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Make `checkpoint` the newest of its log; durable on return. Raises OSError: then it may or may not be."""
        _write(self._directory / _LOGS / _file_name(checkpoint.origin), note)
        self.newest[checkpoint.origin] = checkpoint

    def keep_fork(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Put the two checkpoints that contradict each other side by side; the first pair of a log is enough."""
        name = _file_name(checkpoint.origin)
        if not (self._directory / _FORKS / name).exists():
            _write(self._directory / _FORKS / name, (self._directory / _LOGS / name).read_bytes() + b"\n" + note)


_UNFINISHED = ".new"


def _file_name(origin: str) -> str:
    # hashed: an origin is a stranger's text and may be longer than a file name
    return sha256(origin.encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole; durable on return."""
    unfinished = path.with_name(path.name + _UNFINISHED)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(unfinished, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # After this line: the new bytes under a name that nobody reads; a crash here leaves the old ones in force.
    os.rename(unfinished, path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _no_witness(directory: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"there is no witness in {directory}: {error.strerror}", hint="opfs witness keygen makes one")
