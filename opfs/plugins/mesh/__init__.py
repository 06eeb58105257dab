"""The plugin `mesh`: this host's part of a full WireGuard mesh, from one document that all hosts share."""
