"""The kernel's netlink: links, addresses and routes read fast, changed, and watched.

wire      pure: messages and attributes, bounds checked
kinds     pure: the options of each kind of link, in the words of documents
decode    pure: messages to links, addresses and routes
kernel    a socket: requests, dumps, the kernel's own words on errors; blocking, for worker threads
reading   what is there: dumps of links, addresses and routes
changes   links made, changed and removed, their addresses and routes
tuntap    TUN and TAP links, which only an ioctl makes
monitor   notifications, on the trio thread
generic   generic netlink: families found by name

It knows no document of a plugin. Everything happens in the network namespace of the calling thread.
"""
