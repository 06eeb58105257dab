"""Open vSwitch bridges as elements: schema, pure plan, and the plugin that applies it by OVSDB transactions."""
