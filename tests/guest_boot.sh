#!/bin/sh
# Becomes systemd-nspawn with a whole host in it: an overlay of this machine's own root, booted. tests/guest.py runs
# it in a mount namespace of its own, with the variables NAME, PLACE (a directory of this guest's), GROUP (the name
# of its control group), MASKED (units that are not to start) and KEPT (paths whose mounts are needed); its arguments
# go to systemd-nspawn. What is mounted here ends with the last process of the namespace.
set -eu

# shellcheck source=tests/own_mounts.sh
. "${0%/*}/own_mounts.sh"
# shellcheck disable=SC2086
detach_others $KEPT

# A machine may have version 1 of the control groups too, or see none here. A guest gets pure version 2.
[ -d /sys/fs/cgroup ] || mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$GROUP"
echo $$ >"/sys/fs/cgroup/$GROUP/cgroup.procs"

# What systemd-nspawn keeps about its machines, by name: these are nobody else's.
mkdir -p /run/systemd/nspawn
mount -t tmpfs nspawn /run/systemd/nspawn

mount -t tmpfs guest "$PLACE/root"
mkdir "$PLACE/root/upper" "$PLACE/root/work" "$PLACE/root/merged"
mount -t overlay -o "lowerdir=/,upperdir=$PLACE/root/upper,workdir=$PLACE/root/work" guest "$PLACE/root/merged"
cd "$PLACE/root/merged"

# A machine enables whatever it likes; a guest begins with what systemd itself brings. Generators would add units
# for the machine's disks and old scripts, and run at every reload.
rm -rf etc/systemd/system etc/systemd/system.control var/log/journal
rm -rf usr/lib/systemd/system-generators etc/systemd/system-generators usr/local/lib/systemd/system-generators
mkdir etc/systemd/system
for unit in $MASKED; do ln -s /dev/null "etc/systemd/system/$unit"; done
# Without an identity it would be a first boot, which enables units and asks questions.
rm -f etc/machine-id etc/hostname
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
echo "$NAME" >etc/hostname

cd /
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --link-journal=no --resolv-conf=off \
    --machine="$NAME" --directory="$PLACE/root/merged" --console=pipe --notify-ready=yes --boot "$@"
