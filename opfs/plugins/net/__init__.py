"""The plugin `net`: network interfaces of the host, by rtnetlink."""
