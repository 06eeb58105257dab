"""Drafts behave like files: each behaviour is the same in the mount as in a plain directory of the same disk."""

import attribute_behaviours  # noqa: F401 - adds its own
import behaviours  # noqa: F401 - adds its own
import pytest
from behaviour import BEHAVIOURS, Place

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_like_a_plain_directory(opfs, btrfs_place, name):
    btrfs_place.chmod(0o755)
    drafts = Place(opfs.mount / "state" / "noop", f"{name}.")
    assert BEHAVIOURS[name](drafts) == BEHAVIOURS[name](Place(btrfs_place, f"{name}."))
