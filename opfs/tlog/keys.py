"""The keys that sign the log, in a directory outside every subvolume: they never enter a snapshot or a send stream.

    log.key        the two private keys, a line each (notekeys.Signer.secret)
    next.key       the same for keys that a rotation is about to bring into use
    retired.vkey   verifier keys of earlier pairs, newest first, so that old checkpoints go on verifying
    signed         the size and root of the newest checkpoint that was signed; may lag behind, never leads

The directory and every file must be root's (or whoever runs the daemon's) alone. Blocking; one thread at a time.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.merkle import HASH_BYTES
from opfs.core.notekeys import SEED_BYTES, Kind, Signer, Verifier
from opfs.errors import InvalidRequest, PoolError
from opfs.tlog.files import sync_directory, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DIRECTORY = "keys"
_CURRENT = "log.key"
_NEXT = "next.key"
_RETIRED = "retired.vkey"
_SIGNED = "signed"
_NEW = ".new"
_KINDS = (Kind.ED25519, Kind.ML_DSA_44)
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The two keys that sign every checkpoint: Ed25519, which every tool reads, and ML-DSA-44."""

    signers: tuple[Signer, ...]

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        return tuple(signer.verifier for signer in self.signers)

    @property
    def vkeys(self) -> str:
        """The verifier keys, a line each."""
        return "".join(f"{verifier.vkey}\n" for verifier in self.verifiers)

    @classmethod
    def generate(cls, origin: str) -> KeyPair:
        return cls(tuple(Signer(origin, kind, secrets.token_bytes(SEED_BYTES)) for kind in _KINDS))

    @classmethod
    def parse(cls, text: str, origin: str) -> KeyPair:
        """Read the lines of a key file; raises InvalidRequest unless they are the two keys of that log."""
        pair = cls(tuple(Signer.parse(line) for line in text.splitlines()))
        if tuple(verifier.kind for verifier in pair.verifiers) != _KINDS:
            raise InvalidRequest("a log is signed by two keys", hint="a line for Ed25519, then one for ML-DSA-44")
        for verifier in pair.verifiers:
            if verifier.name != origin:
                raise InvalidRequest(f"the key is called {verifier.name}, the log {origin}")
        return pair

    @property
    def secret(self) -> str:
        return "".join(f"{signer.secret}\n" for signer in self.signers)


class KeyStore:
    """The directory of keys of one log; raises PoolError where it is not as safe as it must be."""

    def __init__(self, directory: Path, origin: str) -> None:
        self._directory = directory
        self._origin = origin
        with _explaining(directory):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
                sync_directory(directory.parent)
            found = os.lstat(directory)
            if not stat.S_ISDIR(found.st_mode):
                raise PoolError(f"{directory} is not a directory")
            _check_private(directory, found)

    def load(self) -> KeyPair | None:
        """The keys in use; None before the first were made."""
        return self._load_pair(_CURRENT)

    def load_next(self) -> KeyPair | None:
        """The keys of a rotation that was begun."""
        return self._load_pair(_NEXT)

    def create(self) -> KeyPair:
        """Make the first keys, durably; raises PoolError where there are keys."""
        if self.load() is not None:
            raise PoolError(f"there are keys in {self._directory} already")
        pair = KeyPair.generate(self._origin)
        self._write(_CURRENT, pair.secret)
        # After this line: the log has keys and has signed nothing; a crash here leaves a log without an entry;
        # repaired by the next start, which appends every block to it.
        return pair

    def stage(self, pair: KeyPair) -> None:
        """Make a pair the next one, durably; `activate` brings it into use."""
        self._write(_NEXT, pair.secret)

    def activate(self) -> KeyPair:
        """Bring the staged pair into use and retire the one before; doing it twice changes nothing."""
        pair = self.load_next()
        if pair is None:
            raise PoolError(f"no keys are staged in {self._directory}")
        old = self.load()
        if old is not None and old.verifiers != pair.verifiers:
            in_use = (*pair.verifiers, *old.verifiers)
            retired = (*old.verifiers, *(verifier for verifier in self.retired() if verifier not in in_use))
            self._write(_RETIRED, "".join(f"{verifier.vkey}\n" for verifier in retired))
        # After this line: the old keys are listed as retired and still in use; a crash here leaves the rotation
        # begun; repaired by the next start, which calls this again.
        with _explaining(self._directory):
            os.rename(self._directory / _NEXT, self._directory / _CURRENT)
            sync_directory(self._directory)
        return pair

    def retired(self) -> Sequence[Verifier]:
        """The verifiers of earlier keys, newest first."""
        text = self._read(_RETIRED)
        try:
            return [Verifier.parse(line) for line in (text or "").splitlines()]
        except InvalidRequest as error:
            raise PoolError(f"{self._directory / _RETIRED} is damaged: {error}") from error

    # --- what was signed -------------------------------------------------------------------------------

    def signed(self) -> tuple[int, bytes] | None:
        """The newest size and root known to have been signed; None where nothing is known."""
        text = self._read(_SIGNED)
        try:
            size, root = (text or "").split()
            if len(bytes.fromhex(root)) == HASH_BYTES:
                return int(size), bytes.fromhex(root)
        except ValueError:
            pass
        if text:
            raise PoolError(
                f"{self._directory / _SIGNED} is damaged, so that the last size this log signed is not known",
                hint="opfs key accept-size",
            )
        return None

    def set_signed(self, size: int, root: bytes) -> None:
        """Remember what was signed. Not synced: one short write in place, so a power cut leaves an earlier one."""
        with _explaining(self._directory):
            fd = os.open(self._directory / _SIGNED, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, b"%020d %s\n" % (size, root.hex().encode()), 0)
            finally:
                os.close(fd)

    def forget_signed(self) -> None:
        """Forget what was signed, durably: only an admin may say so (`opfs key accept-size`)."""
        with _explaining(self._directory):
            with suppress(FileNotFoundError):
                os.unlink(self._directory / _SIGNED)
            sync_directory(self._directory)

    # --- files -----------------------------------------------------------------------------------------

    def _load_pair(self, name: str) -> KeyPair | None:
        text = self._read(name)
        if text is None:
            return None
        try:
            return KeyPair.parse(text, self._origin)
        except InvalidRequest as error:
            raise PoolError(f"{self._directory / name} is damaged: {error}", hint="put it back from a backup") from None

    def _read(self, name: str) -> str | None:
        path = self._directory / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PoolError(f"{path} cannot be read: {error.strerror}") from error
        with open(fd, "rb") as file:
            _check_private(path, os.fstat(fd))
            return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")

    def _write(self, name: str, text: str) -> None:
        with _explaining(self._directory):
            temporary = self._directory / _NEW
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            write_file(temporary, text.encode(), 0o600, durable=True)
            os.rename(temporary, self._directory / name)
            sync_directory(self._directory)


def _check_private(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise PoolError(f"{path} belongs to uid {found.st_uid}", hint=f"it must belong to uid {os.geteuid()}")
    if found.st_mode & 0o077:
        raise PoolError(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint="its keys may be known to them: rotate them (opfs key rotate) after chmod go= " + str(path),
        )


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PoolError(f"the keys in {path} cannot be used: {error.strerror or error}") from error
