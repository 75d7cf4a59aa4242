"""The table of command_status codes."""

import pytest

from libs.smpp.status import CommandStatus, StatusClass

# SMPP 3.4 §5.1.3, by code alone: everything that the specification doesn't call reserved.
SPECIFIED = {
    *range(0x09),
    *(0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x11, 0x13, 0x14, 0x15, 0x33, 0x34, 0x40, 0x42, 0x43, 0x44, 0x45, 0x48, 0x49),
    *(0x50, 0x51, 0x53, 0x54, 0x55, 0x58, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67),
    *(0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xFE, 0xFF),
}


def test_every_code_of_the_specification_is_in_the_table() -> None:
    assert {int(status) for status in CommandStatus} == SPECIFIED


def test_only_rok_is_acceptance() -> None:
    accepted = [status for status in CommandStatus if status.status_class is StatusClass.ACCEPTED]
    assert accepted == [CommandStatus.ESME_ROK]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0x58, StatusClass.THROTTLED),
        (0x14, StatusClass.TEMPORARY),
        (0x08, StatusClass.TEMPORARY),
        (0x45, StatusClass.TEMPORARY),
        (0x64, StatusClass.TEMPORARY),
        (0xFE, StatusClass.TEMPORARY),
        (0x62, StatusClass.PERMANENT),
        (0x0A, StatusClass.PERMANENT),
        (0x0B, StatusClass.PERMANENT),
        (0x65, StatusClass.PERMANENT),
        (0x04, StatusClass.SESSION),
        (0x05, StatusClass.SESSION),
        (0x0E, StatusClass.SESSION),
        (0x53, StatusClass.SESSION),
    ],
)
def test_a_code_has_its_class(code: int, expected: StatusClass) -> None:
    assert CommandStatus(code).status_class is expected


def test_codes_beyond_the_table_have_a_name_words_and_a_class() -> None:
    vendor, reserved = CommandStatus(0x4FF), CommandStatus(0xFFFFFFFF)
    assert (vendor.name, int(vendor), vendor.status_class) == ("VENDOR_0x4FF", 0x4FF, StatusClass.TEMPORARY)
    assert (reserved.name, reserved.status_class) == ("RESERVED_0xFFFFFFFF", StatusClass.TEMPORARY)
    assert "0x4FF" in vendor.words
    assert CommandStatus(0x4FF) == vendor == 0x4FF


def test_what_is_no_code_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        CommandStatus(-1)
