"""Units of systemd as elements: schema, pure plan, and the plugin that applies it."""
