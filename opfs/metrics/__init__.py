"""Figures for Prometheus: what operations cost, how the daemon stands."""
