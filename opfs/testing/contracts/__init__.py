"""Published checks of the contracts in opfs.ports; they need no test framework."""
