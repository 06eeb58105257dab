"""What journald gets, by a stand-in at a socket of its own; tests/system/test_units.py asks the real one."""

from __future__ import annotations

import array
import fcntl
import logging
import os
import socket
import struct

import pytest

from opfs.core.names import BlockName, ElementId
from opfs.core.redaction import Redactor
from opfs.daemon.discretion import DiscreetLog
from opfs.daemon.journald import JournalHandler, PrefixedFormatter, is_journal


@pytest.fixture
def journal(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(10)
        yield server


@pytest.fixture
def log(journal):
    handler = JournalHandler(journal.getsockname())
    logger = logging.getLogger("opfs.test.journald")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def received(journal: socket.socket) -> dict[str, str]:
    data, ancillary, _, _ = journal.recvmsg(1 << 20, socket.CMSG_SPACE(4))
    for _, _, rights in ancillary:
        (file,) = array.array("i", rights)
        with os.fdopen(file, "rb") as large:
            large.seek(0)
            data = large.read()
            assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    return parsed(data)


def parsed(data: bytes) -> dict[str, str]:
    """As the protocol's page says: NAME=value, or NAME, a length and the value."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        fields[name.decode()] = value.decode()
        data = rest
    return fields


def test_a_record_comes_with_its_fields(log, journal):
    log.warning("%s waits since block %s", ElementId("lxc", "100"), BlockName(41, "0123456789ab"))
    fields = received(journal)
    assert fields["MESSAGE"] == "lxc/100 waits since block 00000041-0123456789ab"
    assert (fields["PRIORITY"], fields["LOGGER"]) == ("4", "opfs.test.journald")
    assert (fields["OPFS_ELEMENT"], fields["OPFS_BLOCK"]) == ("lxc/100", "00000041-0123456789ab")
    assert (fields["SYSLOG_IDENTIFIER"], fields["CODE_FUNC"]) == ("opfs", "test_a_record_comes_with_its_fields")
    assert fields["CODE_FILE"] == __file__


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.ERROR, "3"), (logging.CRITICAL, "2")]
)
def test_levels_are_priorities(log, journal, level, priority):
    log.log(level, "x")
    fields = received(journal)
    assert fields["PRIORITY"] == priority
    assert "OPFS_ELEMENT" not in fields


def test_nobody_writes_fields_into_a_message(log, journal):
    log.info("%s", "innocent\nPRIORITY=0\nLOGGER=root")
    fields = received(journal)
    assert fields["MESSAGE"] == "innocent\nPRIORITY=0\nLOGGER=root"
    assert (fields["PRIORITY"], fields["LOGGER"]) == ("6", "opfs.test.journald")


def test_a_traceback_belongs_to_the_message(log, journal):
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it broke")
    message = received(journal)["MESSAGE"]
    assert message.startswith("it broke\nTraceback")
    assert message.endswith("ValueError: why")


def test_secrets_are_taken_out_and_fields_stay(log, journal):
    redact = Redactor()
    redact.add("key", b"correct horse battery")
    log.handlers[0].addFilter(DiscreetLog(redact))
    log.info("%s said correct horse battery", ElementId("net", "br0"))
    fields = received(journal)
    assert "horse" not in str(fields)
    assert fields["OPFS_ELEMENT"] == "net/br0"


def test_what_is_too_large_for_a_datagram_comes_whole(log, journal):
    text = "x\n" * (6 << 20)
    log.info("%s", text)
    assert received(journal)["MESSAGE"] == text


def test_without_journald_it_is_on_stderr(tmp_path, capsys):
    handler = JournalHandler(tmp_path / "nobody")
    record = logging.LogRecord("opfs.x", logging.ERROR, __file__, 1, "lost? %s", ("no",), None)
    handler.handle(record)
    handler.close()
    assert capsys.readouterr().err == "<3>opfs.x: lost? no\n"
    assert PrefixedFormatter().format(record) == "<3>opfs.x: lost? no"


def test_stderr_is_told_from_a_terminal_or_a_file(tmp_path):
    with (tmp_path / "log").open("w") as file:
        status = os.fstat(file.fileno())
        assert is_journal(file.fileno(), f"{status.st_dev}:{status.st_ino}")
        assert not is_journal(file.fileno(), "8:12345")
        assert not is_journal(file.fileno(), "")
