"""The claims of the original proposal, measured on this machine: `opfs bench claims`. Nothing of the daemon uses it."""
