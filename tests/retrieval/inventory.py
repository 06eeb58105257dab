"""The names of a plausible host: people, services, networks, packages. Data; pure."""

from __future__ import annotations

from retrieval.facts import Subject

USERS = ("root", "alice", "bob", "carol", "dave", "erin", "frank", "grace", "deploy", "ansible")
"""Who writes; the last two are programs."""

COMMANDS = ("vim", "bash", "cp", "tee", "jq", "python3", "opfs", "ansible-playbook")

GUESTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("mx1", "Postfix and Dovecot, mail for everybody", ("mail server", "e-mail machine", "host that delivers mail")),
    ("shop", "web shop, customers buy here", ("web shop", "online store", "shop that customers buy in")),
    ("shop-staging", "staging copy of the web shop", ("staging shop", "test copy of the store")),
    ("pg-main", "PostgreSQL, primary database", ("main database", "primary postgres", "sql server")),
    ("pg-replica", "PostgreSQL, standby of pg-main", ("standby database", "database replica")),
    ("gitea", "git repositories of the developers", ("git server", "source code host", "code repositories")),
    ("ci-runner", "builds and tests every commit", ("build machine", "continuous integration worker")),
    ("wiki", "internal documentation", ("wiki", "documentation site", "knowledge base")),
    ("nextcloud", "files and calendars of the staff", ("file sharing", "shared calendars", "cloud storage")),
    ("grafana", "dashboards and Prometheus", ("monitoring", "dashboards", "metrics box")),
    ("ns1", "authoritative DNS", ("name server", "dns server", "domain resolution")),
    ("ldap", "accounts and logins", ("directory server", "user accounts service", "login server")),
    ("voip", "Asterisk, the telephones", ("phone system", "telephone exchange", "pbx")),
    ("printsrv", "CUPS, all printers", ("print server", "printers")),
    ("backup01", "restic repository, nightly backups", ("backup machine", "place where backups go")),
    ("proxy", "HAProxy in front of every web site", ("load balancer", "reverse proxy", "entry point for web traffic")),
    ("vault", "passwords of the team", ("password manager", "secret store")),
    ("jitsi", "video conferences", ("video meetings", "conference server")),
    ("redis-cache", "cache of the shop", ("cache", "in-memory store")),
    ("kiosk", "screen in the lobby", ("lobby display", "information screen")),
    ("erp", "accounting and invoices", ("bookkeeping system", "invoicing", "accounting software")),
    ("minecraft", "game server of the apprentices", ("game server", "apprentices' game")),
)

ENDINGS = ("a", "b", "eu", "us", "lab", "dev", "blue", "green", "old", "new")

BRIDGES = (
    ("vmbr0", "uplink of all guests", ("main bridge", "guests' uplink")),
    ("office", "LAN of the office", ("office network", "staff lan")),
    ("dmz", "machines that the internet reaches", ("demilitarised zone", "public facing segment")),
    ("guestwifi", "visitors' wireless", ("visitor wifi", "guest wireless network")),
    ("storage", "iSCSI and NFS only", ("storage network", "san segment")),
    ("lab", "experiments", ("test lab segment", "playground network")),
)
UPLINKS = (("bond0", "two cables to the core switch"), ("eno1", "left socket"), ("eno2", "right socket"))

SERVICES = (
    ("nginx.service", "web server", ("web server", "http daemon")),
    ("postgresql.service", "database", ("postgres", "relational database")),
    ("ssh.service", "remote login", ("secure shell daemon", "remote login")),
    ("docker.service", "container engine", ("container runtime", "docker engine")),
    ("fail2ban.service", "bans attackers", ("intrusion banning", "brute force protection")),
    ("chrony.service", "clock synchronisation", ("time synchronisation", "ntp client", "clock sync")),
    ("cups.service", "printing", ("printing system", "print spooler")),
    ("bluetooth.service", "radio", ("bluetooth radio", "wireless headset support")),
    ("avahi-daemon.service", "mDNS", ("zeroconf discovery", "bonjour")),
    ("prometheus-node-exporter.service", "host metrics", ("metrics exporter", "monitoring agent")),
    ("unattended-upgrades.service", "security updates", ("automatic updates", "security patching")),
    ("smartmontools.service", "disk health", ("disk health checks", "drive monitoring")),
    ("haproxy.service", "load balancer", ("load balancer daemon", "tcp balancing")),
    ("redis-server.service", "cache", ("redis", "key value cache")),
    ("mariadb.service", "second database", ("mysql", "mariadb database")),
    ("rsyslog.service", "logs to the log host", ("log forwarding", "syslog")),
)
OWN_UNITS = (
    ("restic-backup.service", "Nightly backup of /srv to backup01", "/usr/bin/restic backup /srv", ("nightly backup",)),
    ("sync-invoices.service", "Copy invoices to the tax adviser", "/usr/local/bin/sync-invoices", ("invoice export",)),
    ("temperature.service", "Report the rack's temperature", "/usr/local/bin/rack-temp", ("rack heat sensor",)),
    ("cert-renew.service", "Renew TLS certificates", "/usr/bin/certbot renew", ("https certificate renewal",)),
    ("report-mailer.service", "Mail the weekly sales report", "/usr/local/bin/mail-report", ("weekly sales figures",)),
    ("snmp-trapd.service", "Receive traps of the switches", "/usr/sbin/snmptrapd -f", ("alarms of the switches",)),
)
PACKAGES = (
    ("nginx", ("web server software",)), ("postgresql-15", ("postgres database software",)),
    ("openssl", ("tls library", "cryptography library")), ("curl", ("http command line client",)),
    ("htop", ("process viewer",)), ("tcpdump", ("packet capture tool", "network sniffer")),
    ("vim", ("text editor",)), ("git", ("version control tool",)), ("rsync", ("file copy tool",)),
    ("telnet", ("unencrypted remote terminal",)), ("restic", ("backup program",)),
    ("wireguard-tools", ("vpn command line tools",)), ("fail2ban", ("attack blocker",)),
    ("linux-image-amd64", ("kernel", "operating system kernel")), ("samba", ("windows file sharing",)),
    ("python3-django", ("python web framework",)), ("imagemagick", ("picture conversion tools",)),
    ("openjdk-17-jre", ("java runtime",)), ("nodejs", ("javascript runtime",)), ("zfsutils-linux", ("zfs tools",)),
    ("snmpd", ("switch monitoring agent",)), ("ffmpeg", ("video converter",)), ("apache2", ("apache httpd",)),
    ("isc-dhcp-server", ("server that hands out addresses",)),
)  # fmt: skip
PEOPLE = ("anna-laptop", "ben-phone", "chris-laptop", "dora-tablet", "emil-home", "fatima-laptop", "georg-home",
          "hanna-phone", "ivan-laptop", "julia-home", "kemal-laptop", "lena-home")  # fmt: skip
BRANCHES = ("berlin", "vienna", "zurich", "lyon", "porto", "gdansk", "oslo", "dublin", "athens", "tallinn")
VLANS = {10: "office", 20: "phones", 30: "cameras", 40: "guests", 50: "printers", 60: "storage", 70: "lab", 99: "trunk"}


def guests(breadth: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """The guests of a host; with more breadth, more of each kind, each named for itself."""
    more = [
        (f"{name}-{ENDINGS[number % len(ENDINGS)]}{number}", f"{what}, no. {number}", ())
        for number in range(2, breadth + 1)
        for name, what, _ in GUESTS
    ]
    return [*GUESTS, *more]


def subject(name: str, roles: tuple[str, ...] = ()) -> Subject:
    return Subject(name, roles)
