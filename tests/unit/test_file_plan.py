"""Any file's plan, carried out on a model of a directory, ends in what was asked for; and what each plan costs."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from opfs.core.action import Kind, Safety
from opfs.plugins.file.plan import ATTRIBUTES, is_there, plan_file

ELEMENT = "motd"
PATHS = st.sampled_from(["/a", "/b"])
attributes = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["0644", "0600"]),
        "owner": st.sampled_from(["root", "nobody"]),
        "group": st.sampled_from(["root", "adm"]),
    },
)
contents = st.one_of(
    st.fixed_dictionaries({"content": st.sampled_from(["", "x", "y"])}),
    st.fixed_dictionaries({"source": st.sampled_from(["/s", "/t"])}),
)
present = st.builds(lambda path, what, how: {"path": path, **what, **how}, PATHS, contents, attributes)
others = st.one_of(
    st.builds(lambda path, how: {"path": path, "type": "directory", **how}, PATHS, attributes),
    st.builds(lambda path, to: {"path": path, "type": "symlink", "target": to}, PATHS, st.sampled_from(["/x", "y"])),
)
absent = st.fixed_dictionaries({"path": PATHS, "state": st.just("absent")})
desired_states = st.one_of(st.none(), present, others, absent)

DEFAULTS = {"mode": "0644", "owner": "root", "group": "root"}
origins = st.sampled_from([{}, {"origin": "changed"}, {"origin": "foreign"}])
current_states = st.one_of(
    st.none(),
    st.builds(
        lambda document, origin: {**DEFAULTS, **document, **origin, "state": "present"},
        st.builds(lambda path, what, how: {"path": path, **what, **how}, PATHS, contents, attributes),
        origins,
    ),
    st.builds(lambda path: {"path": path, "digest": "00", **DEFAULTS, "state": "present", "origin": "changed"}, PATHS),
    st.builds(
        lambda document, origin: {
            **(DEFAULTS if document["type"] == "directory" else {}),
            **document,
            **origin,
            "state": "present",
        },
        others,
        st.sampled_from([{}, {"origin": "foreign"}]),
    ),
    absent,
    st.builds(lambda path: {"path": path, "state": "present", "kind": "symlink", "origin": "foreign"}, PATHS),
)


class ModelOfDisk:
    """The element's file as the plugin observes it, with the places it does not look at taken as empty."""

    def __init__(self, observed):
        self.record = None if observed is None else dict(observed)

    def apply(self, action):
        details = dict(action.details)
        match action.step:
            case "write" | "make-directory" | "link":
                kind = details.get("type", "file")
                is_here = is_there(self.record) and self.record["path"] == details["path"]
                assert not is_here or self.record.get("type", "file") == kind, "something else is in the way"
                old = self.record if is_here else DEFAULTS
                kept = {} if kind == "symlink" else {key: old[key] for key in ATTRIBUTES}
                self.record = {**kept, **details, "state": "present"}
            case "set-attributes":
                assert self.record["path"] == details["path"]
                self.record |= details
            case "remove" | "forget":
                if self.record is not None and self.record["path"] == details["path"]:
                    assert action.step == "forget" or is_there(self.record)
                    self.record = None
            case other:
                raise AssertionError(other)


def is_as_asked(desired, now):
    if desired is None:
        return now is None
    if desired.get("state") == "absent":
        return now is None or (now["path"] == desired["path"] and not is_there(now))
    return now is not None and all(now.get(key) == value for key, value in desired.items())


@given(current_states, desired_states)
def test_carrying_out_a_plan_ends_in_what_was_asked_for(current, desired):
    # Writing onto what is no file is not planned around: it fails when it is applied.
    assume(current is None or "kind" not in current or not desired or desired.get("state") == "absent")
    disk = ModelOfDisk(current)
    for action in plan_file(ELEMENT, current, desired).actions:
        disk.apply(action)
    assert is_as_asked(desired, disk.record)
    assert plan_file(ELEMENT, disk.record, desired).actions == ()


@given(current_states)
def test_what_is_as_it_was_written_needs_nothing(current):
    diff = plan_file(ELEMENT, current, current)
    if current is None or not ("origin" in current or "kind" in current):
        assert diff.actions == ()


theirs = current_states.filter(
    lambda current: is_there(current) and "origin" in current and current.get("type", "file") == "file"
)


@given(theirs, st.one_of(st.none(), absent))
def test_removing_what_opfs_did_not_write_is_destructive(current, desired):
    assert plan_file(ELEMENT, current, desired).safety is Safety.DESTRUCTIVE


@given(theirs, present)
def test_replacing_what_opfs_did_not_write_is_disruptive(current, desired):
    diff = plan_file(ELEMENT, current, desired)
    is_moved = current["path"] != desired["path"]
    is_same = all(current[key] == desired.get(key) for key in ("content", "source") if key in current)
    if is_moved:
        assert [action.safety for action in diff.actions] == [Safety.DESTRUCTIVE, Safety.DISRUPTIVE]
    elif is_same and "digest" not in current:
        assert [action.safety for action in diff.actions] == [Safety.SAFE], "taken over"
    else:
        assert [action.safety for action in diff.actions] == [Safety.DISRUPTIVE]


def test_summaries_are_one_line_and_say_what_and_where():
    [action] = plan_file(ELEMENT, None, {"path": "/etc/motd", "content": "é\n", "mode": "0644"}).actions
    assert action.summary == "write /etc/motd (3 bytes, mode 0644)"
    assert (action.kind, action.safety, action.keys) == (Kind.CREATE, Safety.SAFE, ("path", "content", "mode"))
    [action] = plan_file(ELEMENT, {"path": "/etc/motd", "content": "", "origin": "foreign"}, None).actions
    assert action.summary == "remove /etc/motd, which opfs did not write"


def test_keys_that_are_left_out_are_left_alone():
    current = {"path": "/a", "content": "x", "mode": "0600", "owner": "nobody", "group": "adm", "state": "present"}
    assert plan_file(ELEMENT, current, {"path": "/a", "content": "x"}).actions == ()
    [action] = plan_file(ELEMENT, current, {"path": "/a", "content": "x", "mode": "0644"}).actions
    assert (action.step, dict(action.details)) == ("set-attributes", {"path": "/a", "mode": "0644"})
