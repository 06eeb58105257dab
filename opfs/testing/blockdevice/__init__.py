"""A disk to do harm to: a regular file that a small FUSE file system of our own serves, behind a loop device.

    image (a plain file) ← server (a process) ← FUSE ← loop device ← btrfs

The kernels of test machines have no device mapper and no fault injection; this gives both to everything that works
on an image file. Every write and every flush goes to a log in the order in which the disk saw it, with marks of
the test's own between them; requests fail or wait where the test says so, from one moment to the next.

    server.py   the FUSE file system: `python -m opfs.testing.blockdevice.server`
    device.py   BlockDevice: starts the server, says what fails, puts marks, mounts and unmounts
    faults.py   which request fails how: pure
    writelog.py the log: writing, reading, replaying
"""
