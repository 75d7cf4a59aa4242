import re
from uuid import UUID

from libs.bus.tracing import child_of, new_traceparent, trace_id_of, traceparent_in

FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


def test_a_new_trace_has_the_form_of_trace_context_and_is_distinct() -> None:
    traces = {new_traceparent() for _ in range(1000)}
    assert len(traces) == 1000
    assert all(FORM.fullmatch(trace) for trace in traces)


def test_a_child_keeps_trace_and_flags_and_has_a_parent_id_of_its_own() -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-00"
    child = child_of(parent)
    assert child[:36] == parent[:36]
    assert child[36:52] != parent[36:52]
    assert child[52:] == "-00"


def test_without_a_parent_of_a_known_form_a_trace_begins() -> None:
    for parent in (None, "", "junk", f"01-{'a' * 32}-{'b' * 16}-00", f"00-{'a' * 32}-{'b' * 16}-00-more"):
        assert FORM.fullmatch(child_of(parent))


def test_the_id_of_a_trace_is_its_128_bits() -> None:
    assert trace_id_of(f"00-{'ab' * 16}-{'c' * 16}-00") == UUID("ab" * 16)


def test_what_is_no_trace_of_a_known_form_has_no_id() -> None:
    tail = f"-{'c' * 16}-00"
    forms = (f"01-{'a' * 32}{tail}", f"00-{'a' * 32}{tail}-more", f"00-{'g' * 32}{tail}", f"00-{'a' * 30}-b{tail}")
    for traceparent in (None, "", "junk", *forms):
        assert trace_id_of(traceparent) is None


def test_an_event_is_in_a_trace_the_same_each_time_under_a_parent_id_of_its_own() -> None:
    trace_id = UUID("ab" * 16)
    one, other = "1" * 32, "2" * 32
    assert traceparent_in(trace_id, one) == f"00-{'ab' * 16}-{'1' * 16}-01"
    assert traceparent_in(trace_id, one) != traceparent_in(trace_id, other)
    assert trace_id_of(traceparent_in(trace_id, one)) == trace_id
