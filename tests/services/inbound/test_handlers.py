import pytest

from libs.bus.errors import BadRecord
from libs.sms_text.parts import Part
from services.inbound.handlers import take
from services.inbound.joining import part_of
from services.inbound.senders import sender_of
from tests.services.inbound.examples import SENDER, SOURCE, event


@pytest.mark.parametrize(
    ("source", "region", "sender"),
    [
        (SOURCE, None, SENDER),
        (SENDER, None, SENDER),
        ("0700000017", "KE", SENDER),
        ("0700000017", None, "0700000017"),
        ("3212345678", "US", "+3212345678"),
        ("29022158", None, "+29022158"),
        ("40404", "KE", "40404"),
        ("BANK", "KE", "BANK"),
        ("", None, ""),
    ],
)
def test_a_phone_number_is_known_by_its_e164_and_all_else_as_it_came(
    source: str, region: str | None, sender: str
) -> None:
    assert sender_of(source, region) == sender


def test_the_tenant_is_that_of_the_gateway() -> None:
    (arrival,) = take([event(gateway="other")], {"other": "clinic"}.__getitem__, None)
    assert (arrival.tenant, arrival.sender, arrival.content) == ("clinic", SENDER, b"STOP")


def test_content_that_is_not_hex_is_a_bad_record() -> None:
    good = event()
    object.__setattr__(good.data, "content_hex", "zz")
    with pytest.raises(BadRecord, match="content_hex"):
        take([good], lambda _: "demo", None)


def test_sar_fields_number_a_part() -> None:
    data = event(b"abc", sar_reference=7, sar_total=3, sar_part=2).data
    assert part_of(data, b"abc") == Part(b"abc", 7, 3, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"sar_reference": 7, "sar_total": 3, "sar_part": 4},
        {"sar_reference": 7, "sar_total": 3, "sar_part": 0},
        {"sar_reference": 7, "sar_total": 3},
        {"esm_class": 0x40},
    ],
)
def test_joining_fields_without_sense_leave_a_part_alone(changes: dict[str, int]) -> None:
    content = b"\x50ab"
    assert part_of(event(content, **changes).data, content) == Part(content)
