"""Flows and groups of Open vSwitch bridges as elements: schema, pure plan, and the plugin that applies bundles."""
