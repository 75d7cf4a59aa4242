import re

from libs.bus.tracing import child_of, new_traceparent

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
