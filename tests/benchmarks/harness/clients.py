"""Programs that write documents: one writer in this process, many in processes of their own.

Run as a program, this file is one process of threads that each rewrite a document of their own until a given
time and then print how long each write took. That side imports next to nothing, so that on a small
machine the clients leave the processor to what is measured. Times are of the system-wide monotonic clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_START_DELAY_S = 0.7

SERIAL = b"0" * 16
"""What of a document is replaced by another number at each write."""


def write_document(path: str, content: bytes) -> None:
    """What `echo … > path` does; raises OSError as any program would see it."""
    fd = os.open(path, _FLAGS, 0o644)
    try:
        written = os.write(fd, content)
    finally:
        os.close(fd)
    if written != len(content):
        raise OSError(f"only {written} of {len(content)} bytes of {path} were written")


def run_writers(documents: dict[str, bytes], processes: int, seconds: float) -> tuple[list[float], float]:
    """One writer for each path, each in a loop for `seconds`, in so many processes.

    `documents` are one line each and hold SERIAL. Returns the duration of every write and the wall time from
    the common start to the last answer, in seconds. Raises RuntimeError with the errors the writers got.
    """
    begin = time.monotonic() + _START_DELAY_S
    lines = [os.fsencode(path) + b"\t" + content.rstrip(b"\n") + b"\n" for path, content in documents.items()]
    command = [sys.executable, "-I", "-S", __file__, f"{begin:.6f}", f"{begin + seconds:.6f}"]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(processes)
    ]
    try:
        for number, process in enumerate(running):
            if process.stdin is not None:
                process.stdin.write(b"".join(lines[number::processes]))
                process.stdin.close()
                process.stdin = None
        results = [process.communicate() for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    errors = b"".join(stderr for _, stderr in results).decode(errors="replace")
    if errors:
        raise RuntimeError(f"writers failed:\n{errors}")
    answers = [line.split() for stdout, _ in results for line in stdout.splitlines()]
    return [float(duration) for _, duration in answers], max(float(end) for end, _ in answers) - begin


# --- the program -----------------------------------------------------------------------------------------


def _write_until(
    path: str, template: bytes, begin: float, end: float, answers: list[tuple[float, float]], errors: list[str]
) -> None:
    """Rewrite one document from `begin` to `end`, with another serial number each time."""
    serial = int(begin * 1000) * 100_000
    time.sleep(max(0.0, begin - time.monotonic()))
    try:
        while (start := time.monotonic()) < end:
            serial += 1
            write_document(path, template.replace(SERIAL, b"%016d" % serial))
            done = time.monotonic()
            answers.append((done, done - start))
    except OSError as error:
        errors.append(f"{path}: {error}")


def _main(begin: float, end: float) -> int:
    """Standard input: a line of path, tab, document for each writer."""
    answers: list[tuple[float, float]] = []
    errors: list[str] = []
    threads = []
    for line in sys.stdin.buffer:
        path, _, template = line.rstrip(b"\n").partition(b"\t")
        arguments = (os.fsdecode(path), template + b"\n", begin, end, answers, errors)
        threads.append(threading.Thread(target=_write_until, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write("".join(f"{done:.6f} {duration:.9f}\n" for done, duration in answers))
    sys.stderr.write("".join(f"{error}\n" for error in errors))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(_main(float(sys.argv[1]), float(sys.argv[2])))
