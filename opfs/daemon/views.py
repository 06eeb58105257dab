"""The views of the host in the mount: /live, /undeclared, /plan, /schema, /plugins, and the command that imports.

Wires, decides nothing else. Trio thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.commit.live import Live
from opfs.commit.planner import Planner
from opfs.core.timestamp import format_time
from opfs.daemon.report import describe_plugins
from opfs.fuse.caller import groups_of, identify
from opfs.vfs.glances import Glances
from opfs.vfs.importing import make_import
from opfs.vfs.live import DriftReports, LiveDirectory
from opfs.vfs.plan_store import PlanStore
from opfs.vfs.plans import PlanDirectory, PlanServices
from opfs.vfs.plugins import make_plugins
from opfs.vfs.restoring import make_restore
from opfs.vfs.schemas import make_schemas
from opfs.vfs.undeclared import UndeclaredDirectory

if TYPE_CHECKING:
    from opfs.core.names import ElementId
    from opfs.daemon.parts import Parts
    from opfs.vfs.ctl import Command
    from opfs.vfs.node import Node
    from opfs.vfs.submissions import Submissions


class Views:
    """The nodes, in the order of a listing, and the commands that go with them."""

    def __init__(self, parts: Parts, submissions: Submissions) -> None:
        sequencer, time_ns = parts.sequencer, parts.started_ns
        live = Live(sequencer)
        glances = Glances(live, sequencer.plugins, lambda: sequencer.catalog, sequencer.read_document)

        def known_drift(id: ElementId) -> tuple[str, str] | None:
            report = parts.drift.of(id)
            return (format_time(report.since_ns), report.culprit) if report is not None else None

        plans = PlanStore(parts.clock)
        services = PlanServices(
            plugins=lambda: sequencer.plugins,
            catalog=lambda: sequencer.catalog,
            groups=groups_of,
            planner=Planner(sequencer),
            store=plans,
            recorded=submissions.recorded,
            identify=identify,
        )
        self.nodes: list[Node] = [
            LiveDirectory(("live",), glances, DriftReports(glances, groups_of, known_drift), time_ns=time_ns),
            UndeclaredDirectory(("undeclared",), glances, time_ns=time_ns),
            PlanDirectory(("plan",), services, time_ns=time_ns),
            make_schemas(sequencer.plugins, time_ns=time_ns),
            make_plugins(lambda: describe_plugins(parts), time_ns=time_ns),
        ]
        self.commands: list[Command] = [
            make_import(plans, submissions, identify, parts.clock),
            make_restore(plans, Planner(sequencer), submissions, parts.secrets, identify, parts.clock),
        ]
