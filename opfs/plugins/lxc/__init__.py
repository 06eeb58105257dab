"""Containers of plain LXC as elements: schema, pure plan, and the plugin that applies it."""
