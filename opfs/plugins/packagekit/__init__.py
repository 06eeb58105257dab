"""Packages as elements, by PackageKit: schema, pure plan, and the plugin that applies it."""
