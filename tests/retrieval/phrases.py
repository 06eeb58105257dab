"""How people ask, months later, for a change of some kind: written by hand, kind by kind. Data; pure.

P paraphrase: none of the words that documents have for it, as far as language allows. K keyword: what somebody
types who knows the name. N number: the figure is what is remembered. X negation: something is no longer so.
W who: asks for or names a person. F failure. D drift. A slot in braces has to be true of a change for it to be an
answer.
"""

from __future__ import annotations

PARAPHRASE, KEYWORD, NUMBER, NEGATION, WHO, FAILURE, DRIFT = (
    "paraphrase", "keyword", "number", "negation", "who", "failure", "drift",
)  # fmt: skip
WHY, TYPO, HARD = "why", "typo", "hard"
CATEGORIES = (PARAPHRASE, KEYWORD, NUMBER, NEGATION, WHO, WHY, FAILURE, DRIFT, TYPO, HARD)

_LETTERS = {
    "P": PARAPHRASE,
    "K": KEYWORD,
    "N": NUMBER,
    "X": NEGATION,
    "W": WHO,
    "F": FAILURE,
    "D": DRIFT,
}

_CONTAINERS = """
guest.created       P when did we set up the {role}
guest.created       K new container {name}
guest.created       W {user} made a machine called {name}
guest.created       F {name} could not be created
guest.deleted       P we got rid of the {role}
guest.deleted       X the {role} does not exist any more
guest.deleted       K destroyed {name}
memory.raised       P give the {role} more RAM
memory.raised       K {name} memory increased
memory.raised       N {name} has {new} megabytes of RAM now
memory.raised       W who gave {name} more memory
memory.raised       F raising the RAM of {name} did not work
memory.lowered      P take RAM away from the {role}
memory.lowered      N {name} shrunk from {old} to {new} MB
memory.lowered      W {user} reduced the memory of {name}
memory.lowered      F could not shrink the memory of {name}
swap.set            K swap space for {name}
swap.set            N {new} MB of swap for {name}
swap.off            X {name} may not swap any longer
swap.off            P no paging to disk for the {role}
cores.more          P more processors for the {role}
cores.more          N {name} got {new} CPUs
cores.more          W who added processors to {name}
cores.fewer         P fewer processors for the {role}
cores.fewer         N {name} went from {old} to {new} cores
throttle.set        P slow down the processor time of the {role}
throttle.set        K cpulimit {name}
throttle.lifted     X {name} is not limited in CPU time any more
autostart.on        P the {role} comes up by itself after a reboot
autostart.on        K {name} onboot
autostart.off       X {name} no longer starts on boot
autostart.off       X the {role} stays off when the host reboots
autostart.off       W {user} stopped {name} from starting automatically
power.off           P somebody shut down the {role}
power.off           W who switched {name} off
power.off           X {name} is not running any more
power.on            P bring the {role} back up
power.on            K {name} started running
power.on            F {name} would not start
bridge.moved        P connect the {role} to another network
bridge.moved        K {name} moved to bridge {new}
bridge.moved        X {name} is no longer attached to {old}
bridge.moved        W {user} put {name} into {new}
bridge.moved        F failed to plug {name} into {new}
address.fixed       N IP address {new}
address.fixed       N {name} gave up {old}
address.fixed       P the {role} got a new address
address.fixed       W who changed the IP of {name} to {new}
address.dhcp        P let the {role} ask for its address automatically
address.dhcp        X {name} has no static IP any more
guestvlan.set       N {name} in VLAN {new}
guestvlan.set       P put the {role} into a different virtual LAN
guestvlan.removed   X {name} is not tagged any longer
guestmtu.set        N MTU {new} inside {name}
guestmtu.set        P packet size of the {role}'s NIC
bandwidth.limited   P throttle the traffic of the {role}
bandwidth.limited   N {name} limited to {new} megabytes per second
bandwidth.lifted    X {name}'s traffic is not capped any more
cable.unplugged     P pull the network cable of the {role}
cable.unplugged     K {name} link_down
cable.plugged       P plug the cable of {name} in again
guestfirewall.on    P packet filter for the {role}
guestfirewall.on    K {name} firewall
guestfirewall.off   X {name} is not protected by the firewall any more
mount.added         K {path} in {name}
mount.added         P make {path} available inside the {role}
mount.removed       X {name} cannot see {path} any more
nesting.on          P run docker inside {name}
nesting.on          K {name} nesting
nesting.off         X no containers within {name} any more
fuse.on             P user space file systems in {name}
mknod.on            P allow device nodes in {name}
keyctl.on           K keyctl {name}
protection.on       P nobody may delete the {role} by accident
protection.on       K protect {name}
protection.off      X {name} can be deleted again
resolver.set        N {name} uses {new} for DNS
resolver.set        P which name servers does the {role} ask
unprivileged.on     P root inside {name} is an ordinary user outside
unprivileged.off    X {name} is not unprivileged any more
hostname.set        K renamed to {new}
hostname.set        P the {role} has another name
driftmemory.seen    D somebody changed the memory of {name} behind our back
driftpower.seen     D {name} was started or stopped by hand
"""

_NETWORKS = """
interface.created   K new interface {name}
interface.created   P set up the {role}
interface.created   F {name} interface could not be made
interface.deleted   X interface {name} is gone
mtu.raised          N {name} MTU {new}
mtu.raised          P bigger packets on the {role}
mtu.raised          W who increased the frame size on {name}
mtu.lowered         N {name} mtu lowered to {new}
mtu.lowered         P smaller packets on the {role}
mtu.lowered         F could not lower the MTU of {name}
ip.added            N who added {ip}
ip.added            N {ip} on {name}
ip.added            P another address for the {role}
ip.removed          X {ip} was taken off
ip.removed          P {name} lost an address
route.added         N way to {to}
route.added         K route {name} {to}
route.removed       X packets for {to} no longer go through {name}
gateway.set         N default gateway {via}
gateway.set         P {name} is the way to the internet
stp.on              P prevent loops on the {role}
stp.on              K {name} spanning tree
stp.off             X spanning tree disabled on {name}
vlanfilter.on       P let {name} separate virtual LANs
vlanfilter.off      X {name} does not filter VLANs any more
bond.mode           K bond {name} {new}
bond.mode           P how the two cables share the load
link.down           P disconnect the {role}
link.down           W who took {name} down
link.up             P the {role} works again
link.up             K {name} up
port.joined         K {name} enslaved to {bridge}
port.joined         P make {name} a member of {bridge}
port.left           X {name} is no longer part of {bridge}
tunnel.created      K wireguard {name}
tunnel.created      P new virtual private network {name}
peer.added          K {peer}
peer.added          P let {peer} into the VPN
peer.added          W who gave {peer} access
peer.added          F {peer} could not be added to the vpn
peer.removed        X {peer} has no VPN access any more
peer.removed        W who threw {peer} out
vpnport.moved       N VPN listens on {new}
vpnport.moved       P {name} moved to a different udp port
peer.moved          N {peer} is reached at {ip}
peer.moved          P {peer} got another public address
mesh.created        K mesh network {name}
node.added          P {node} joined the site to site network {name}
node.added          K mesh {name} {node}
node.removed        X {node} is not in {name} any longer
keepalive.set       N keepalive {new} on {name}
keepalive.set       P how often {name} pings its peers
driftmtu.seen       D mtu of {name} differs from what we wanted
driftip.seen        D the addresses of {name} disappeared
driftlink.seen      D {name} went down without us
driftvpnport.seen   D {name} listens on another port than it should
"""

_SWITCHES = """
switch.created      K switch {name}
switch.created      P new virtual switch {name}
switchport.added    K {port} on {name}
switchport.added    P plug {port} into the switch {name}
switchport.added    W who attached {port} to {name}
switchport.removed  X {port} is not on {name} any more
switchport.retagged N {port} from VLAN {old} to {new}
switchport.retagged P {port} belongs to a different virtual LAN
switchport.retagged F could not retag {port}
overlay.added       P tunnel to the branch in {branch}
overlay.added       N {type} to {ip}
controller.set      N SDN controller {ip}
controller.set      P who manages the switch {name} from outside
controller.removed  X {name} has no controller any more
failmode.secure     P {name} drops everything when its controller is gone
failmode.secure     K {name} fail_mode secure
failmode.standalone P {name} forwards by itself when its controller is gone
rstp.on             P loop protection on the switch {name}
rstp.off            X no rapid spanning tree on {name} any more
flows.created       K flows of {name}
flows.deleted       X all flow rules of {name} were thrown away
flow.blocked        N port {port} blocked on {name}
flow.blocked        P forbid {service} through {name}
flow.blocked        W who blocked {service} on {name}
flow.blocked        F rule against {service} was not accepted
flow.allowed        N open port {port} on {name}
flow.allowed        P let {service} through {name}
flow.allowed        W {user} allowed {service} on {name}
flow.unblocked      X {service} is no longer blocked on {name}
host.blocked        N block {ip}
host.blocked        P nothing may come from {ip} any more
balancing.set       P spread traffic over two ports of {name}
"""

_SOFTWARE = """
service.adopted     P when did we start to manage {role}
service.adopted     K {name} unit
unit.written        P new job: {role}
unit.written        K {name} service written
unit.deleted        X {name} service does not exist any more
runas.set           P {name} does not run as root but as {user_of}
restart.policy      P what happens when {name} crashes
restart.delay       N wait {new} seconds before {name} restarts
timezone.set        P time zone of {name}
timezone.set        K {name} {new}
nice.set            P lower the scheduling priority of {name}
openfiles.set       P more file descriptors for {name}
openfiles.set       N {name} LimitNOFILE {new}
hardening.set       P sandbox the {role}
hardening.set       K {name} hardening
oom.set             P keep the kernel from killing {name} when memory is short
watchdog.set        P restart {name} if it hangs
dropin.removed      X {file} of {name} was thrown away
unitboot.on         P {name} starts with the machine
unitboot.on         K enabled {name}
unitboot.off        X {name} does not start at boot any more
unitboot.off        W who disabled {name}
unitrun.on          P {name} was launched
unitrun.on          F {name} did not come up
unitrun.off         P switch off the {role}
unitrun.off         W who stopped {name}
unitrun.off         X {role} not running
mask.on             X {name} can no longer be started by anybody
mask.on             K mask {name}
mask.off            X {name} is not masked any longer
unitmemory.set      N {name} may use {gib} GiB
unitmemory.set      P cap how much RAM the {role} takes
unitcpu.set         N cpu weight {new} for {name}
unitcpu.set         P processor share of the {role}
tasks.set           P how many processes may {name} have
tasks.set           N {name} tasks {new}
unitio.set          P disk priority of {name}
package.installed   P get the {role}
package.installed   K install {name}
package.installed   F {name} could not be installed
package.pinned      N {name} {version}
package.pinned      P hold the {role} at one release
package.pinned      W {user} pinned {name}
package.pinned      F wrong version of {name}
package.latest      P always the newest {name}
package.latest      X {name} is no longer pinned
package.removed     P we do not want the {role}
package.removed     X {name} was uninstalled
package.removed     W who removed {name}
sshport.set         P move remote logins to another port
sshport.set         N {line} sshd
rootlogin.off       X root may no longer log in over ssh
rootlogin.on        P allow the superuser to log in remotely
passwords.off       X only keys, no passwords for remote login
passwords.on        P let people log in with a password again
xforward.off        X no graphical programs over ssh any more
authtries.set       P how many wrong passwords are allowed
upload.raised       P customers can send bigger pictures to the web site
upload.lowered      P smaller uploads only
webtimeout.set      P idle browsers are disconnected sooner
tokens.off          X web server does not tell its version any more
workers.set         P more processes for serving web pages
forwarding.on       P make the host a router
forwarding.off      X the host does not forward packets any more
swappiness.set      P the kernel should keep programs in RAM
inotify.set         P too few file watches
backlog.set         P longer queue for incoming connections
dbconnections.set   P how many clients may talk to postgres at once
dbbuffers.set       P bigger cache for the database
dbworkmem.set       P memory for sorting in the database
slowlog.on          P record slow queries
hostresolver.set    P the host asks another dns server
hostresolver.set    N {line}
searchdomain.set    P suffix for short host names
timeserver.set      P where does the host get its time from
banner.set          P text that users see when they log in
hostentry.added     N {ip} {name_of}
hostentry.added     P where is {name_of}
job.added           K cron {job}
job.added           P run {job} every day
job.removed         X {job} does not run any more
filemode.closed     P others may not read {name} any more
filemode.closed     N {name} {new}
filemode.opened     P more people may read {name}
filegroup.set       P {name} belongs to {new}
file.written        K {name}
file.deleted        X {name} was deleted
driftpackage.seen   D somebody uninstalled {name} by hand
driftunit.seen      D {name} was started or stopped outside of opfs
driftfile.seen      D {name} was edited by hand
"""


def _parse(table: str) -> list[tuple[str, str, str]]:
    rows = (line.split(maxsplit=2) for line in table.strip().splitlines())
    return [(kind, _LETTERS[letter], text) for kind, letter, text in rows]


PHRASES = [row for table in (_CONTAINERS, _NETWORKS, _SWITCHES, _SOFTWARE) for row in _parse(table)]
"""Kind of the deed, category, text with slots."""
