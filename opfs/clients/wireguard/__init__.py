"""WireGuard devices: the kernel's, or wireguard-go's where the kernel has none.

keys       pure: keys as people write them, a private key's public one
device     pure: what a device is asked to be and what it is seen to be
uapi       wireguard-go's socket: one device described and configured in text
kernel     the kernel's devices, by generic netlink
userspace  wireguard-go's processes: started, found again, ended
devices    both, behind one face
tunnel     pure: the settings of an interface as documents say them, what differs, and the steps between
interface  those steps carried out: device, addresses, routes; checkpoints with the secrets in them
watching   what changes: notifications, and a look every few seconds

It knows no plugin: `wireguard` and `mesh` share it. Blocking functions are for worker threads.
"""
