"""Texts to segments: which alphabet, how many, where they are cut."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.sms_text.gsm import decode_gsm, encode_gsm
from libs.sms_text.parts import Part, decode_text, read_part
from libs.sms_text.segments import Alphabet, Segment, count_segments, needs_ucs2, segments

# 3GPP TS 23.038 §6.2.1, written out a second time, in the order of its codes.
BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmn"
    "opqrstuvwxyzäöñüà"
)
EXTENSION = "\f^{}\\[~]|€"

gsm_texts = st.text(alphabet=BASIC + EXTENSION, max_size=700)
escape_heavy_texts = st.text(alphabet="a€[", min_size=140, max_size=480)
any_texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300)
surrogate_heavy_texts = st.text(alphabet="я😀", min_size=60, max_size=220)
texts = gsm_texts | escape_heavy_texts | any_texts | surrogate_heavy_texts


def _parts(text: str, reference: int) -> list[Part]:
    return [read_part(segment.short_message, segment.esm_class) for segment in segments(text, reference)]


@given(texts, st.integers(0, 0xFFFF))
def test_parts_join_to_the_text_and_are_numbered_under_one_reference(text: str, reference: int) -> None:
    parts = _parts(text, reference)
    assert decode_text(b"".join(part.octets for part in parts), 8 if needs_ucs2(text) else 0) == text
    if len(parts) == 1:
        assert parts[0].total == 1
    else:
        assert parts == [Part(part.octets, reference, len(parts), number) for number, part in enumerate(parts, start=1)]


@given(texts)
def test_every_part_is_a_text_of_its_own_so_that_no_pair_is_split(text: str) -> None:
    ucs2 = needs_ucs2(text)
    for part in _parts(text, 7):
        if ucs2:
            part.octets.decode("utf-16-be", "strict")
        else:
            assert encode_gsm(decode_gsm(part.octets)) == part.octets


@given(texts)
def test_the_count_is_that_of_the_segments_and_their_sizes_are_within_bounds(text: str) -> None:
    made = segments(text, 7)
    assert count_segments(text) == len(made)
    gsm = not needs_ucs2(text)
    if len(made) == 1:
        assert len(made[0].short_message) <= (160 if gsm else 140)
        assert made[0].esm_class == 0
    for segment in made if len(made) > 1 else []:
        assert len(segment.short_message) <= 7 + (152 if gsm else 132)
        assert segment.esm_class == 0x40
    for segment in made[:-1]:  # a part is filled, but for a pair that doesn't fit
        assert len(segment.short_message) >= 7 + (151 if gsm else 130)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 304, 2),
        ("a" * 305, 3),
        ("€" * 80, 1),
        ("a" * 155 + "€" * 5, 2),
        ("€" * 152, 2),
        ("a" * 151 + "€" + "a" * 151, 3),
        ("я" * 70, 1),
        ("я" * 71, 2),
        ("я" * 132, 2),
        ("я" * 133, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("я" + "😀" * 65 + "я", 3),
        ("a" * (152 * 255), 255),
    ],
)
def test_segments_are_counted_in_septets_and_code_units(text: str, count: int) -> None:
    assert count_segments(text) == count
    assert len(segments(text, 1)) == count


def test_a_segment_is_ready_for_submit_sm() -> None:
    assert segments("a@€", 1) == [Segment(b"a\x00\x1be", 0, 0)]
    assert segments("я", 1) == [Segment(b"\x04\x4f", 0, 8)]
    first, second = segments("a" * 161, 0x1234)
    assert first == Segment(b"\x06\x08\x04\x12\x34\x02\x01" + b"a" * 152, 0x40, 0)
    assert second == Segment(b"\x06\x08\x04\x12\x34\x02\x02" + b"a" * 9, 0x40, 0)


@pytest.mark.parametrize("text", ["я", "a`b", "tab\t", "nul\0", "escape\x1b", "“quoted”", "😀", "abc€ç"])
def test_a_character_outside_the_alphabet_makes_it_ucs2(text: str) -> None:
    assert needs_ucs2(text)
    assert encode_gsm(text) is None


@pytest.mark.parametrize("text", ["\ud83d", "a\ude00b", "\ud83d\ude00"])
@pytest.mark.parametrize("function", [needs_ucs2, count_segments, lambda text: segments(text, 1)])
def test_a_lone_surrogate_is_refused(function: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        function(text)


@pytest.mark.parametrize("text", ["a" * (152 * 255 + 1), "я" * (66 * 255 + 1)])
def test_more_than_255_segments_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="needs 256 segments"):
        count_segments(text)
    with pytest.raises(ValueError, match="needs 256 segments"):
        segments(text, 1)


@pytest.mark.parametrize("reference", [-1, 0x10000])
def test_a_reference_beyond_16_bits_is_refused(reference: int) -> None:
    with pytest.raises(ValueError, match="reference"):
        segments("a", reference)


@given(texts, st.sampled_from([Alphabet.LATIN1, Alphabet.ASCII]))
def test_another_default_alphabet_has_as_many_segments_of_its_own_octets_or_is_ucs2(
    text: str, alphabet: Alphabet
) -> None:
    ucs2 = needs_ucs2(text, alphabet)
    made = segments(text, 7, ucs2=ucs2, alphabet=alphabet)
    octets = b"".join(read_part(segment.short_message, segment.esm_class).octets for segment in made)
    assert octets == text.encode("utf-16-be" if ucs2 else alphabet)
    assert {segment.data_coding for segment in made} == {8 if ucs2 else 0}
    assert len(made) == count_segments(text, ucs2=ucs2)
    if not ucs2:
        assert len(made) == count_segments(text)


def test_a_character_that_the_alphabet_lacks_is_never_replaced_nor_told() -> None:
    with pytest.raises(ValueError, match=r"^text: has a character that ascii lacks$"):
        segments("5 £", 7, alphabet=Alphabet.ASCII)
