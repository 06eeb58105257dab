"""Whether what was acknowledged survives: power cuts, kills, and the ledger that says what has to be there.

    ledger.py     what was tried and what was answered, and what the chain may say about it
    writers.py    who writes: the ways in which people and editors change documents
    machine.py    a pool, a host and a daemon on one disk
    recording.py  a scripted run on a disk that records; powercut.py replays it to its flush points
    campaign.py   writers, readers and searches while the daemon is killed at random moments

Shared by the tests beside it and by scripts/bench.
"""
