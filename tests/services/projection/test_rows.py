import msgspec

from libs.contracts.fold import apply, new_fold
from services.projection.rows import decode_fold, encode_fold
from tests.services.projection.stories import Story


def test_a_fold_that_was_stored_before_requests_knew_their_cycles_is_read_as_of_the_first() -> None:
    event = Story(1).requested().event
    fold = new_fold(event)
    apply(fold, event)
    assert decode_fold(encode_fold(fold)) == fold
    tenant, kind, person, request, *others = msgspec.msgpack.decode(encode_fold(fold))
    older = msgspec.msgpack.encode((tenant, kind, person, request[:9], *others))
    assert decode_fold(older) == fold
