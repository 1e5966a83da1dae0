"""deploy.audit: faulty pins and licences are found."""

from pathlib import Path

import pytest

from deploy import audit

ROOT = Path(__file__).resolve().parents[2]


def test_every_installed_package_is_pinned_to_its_version() -> None:
    assert audit.unpinned(audit.pins((ROOT / "constraints.txt").read_text()), audit.installed()) == []


def test_missing_and_outdated_pins_are_reported() -> None:
    pinned = audit.pins("# c\nOne.Two==1.0\nthree==2.0\n")
    assert audit.unpinned(pinned, {"one-two": "1.0"}) == []
    assert audit.unpinned(pinned, {"three": "2.1", "four": "1"}) == [
        "four 1 is installed, nothing is pinned",
        "three 2.1 is installed, 2.0 is pinned",
    ]


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        ("MIT License", True),
        ("BSD-3-Clause; Apache-2.0", True),
        ("MPL-2.0 AND MIT", True),
        ("GNU Affero General Public License v3", False),
        ("MIT AND GPL-3.0", False),
        ("UNKNOWN", False),
        ("Other/Proprietary License", False),
    ],
)
def test_forbidden_licences_are_reported(licence: str, fine: bool) -> None:
    assert (audit.forbidden([{"Name": "x", "Version": "1", "License": licence}]) == []) is fine
