# shellcheck shell=sh
# Sourced by what a test runs in a mount namespace of its own: detach_others PATH… takes every mount away that somebody
# else made, except those that one of the paths lies in. A new namespace copies all mounts of the moment, and what is
# mounted here as well stays in use when its owner has unmounted it. opfs/testing/ownmounts.py is the same for Python.
detach_others() {
    tac /proc/self/mountinfo | while read -r _ _ _ _ point _; do
        case "$point" in / | /proc | /proc/* | /sys | /sys/* | /dev | /dev/* | /run | /run/*) continue ;; esac
        point=$(printf '%b' "$point") # a blank is \040 there
        for needed in "$@"; do
            case "$needed/" in "$point"/*) continue 2 ;; esac
        done
        umount --lazy --no-canonicalize "$point" # asks nothing of a file system whose daemon may hang
    done
}
