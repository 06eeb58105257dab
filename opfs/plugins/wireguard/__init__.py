"""The plugin `wireguard`: WireGuard interfaces, the kernel's or wireguard-go's."""
