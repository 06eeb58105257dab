"""opfs: a file system whose blocks are the history of a host's desired configuration."""

__version__ = "0.1.0"
