"""The answer to a batch, which grows slice by slice as Kafka acknowledges them."""

from __future__ import annotations

from http import HTTPStatus
from uuid import UUID

from libs.contracts.http.answers import FieldProblem
from services.api_gateway.bulk.batch import Slice
from services.api_gateway.http.responses import Response, Stream

_WHY = "Kafka did not acknowledge it in time, so it is not known to be accepted"
REPEAT = f"{_WHY}: repeat the call with the same Idempotency-Key"
LOST = f"{_WHY}, but may still be sent; the call has no Idempotency-Key to be repeated with"


class BulkAnswer:
    """202 with `Bulk` as its body, written by hand. It begins to go out as soon as anything is accepted and more is to come, if there is
    a `stream` for it; else it is whole at its end. Nothing waits for the client to read: what is unread is kept, as of a whole answer."""

    def __init__(self, batch_id: UUID, stream: Stream | None, *, repeatable: bool) -> None:
        location = f"/batches/{batch_id}"
        self._headers = {"Location": location}
        self._stream = stream
        self.begun = False
        self._waiting = f'{{"batchId":"{batch_id}","location":"{location}","items":['
        self._comma = ""
        self._doubt = FieldProblem(field="body", reason=REPEAT if repeatable else LOST).model_dump_json()
        self._accepted = 0
        self._rejected = 0
        self._unacknowledged = 0

    def add(self, part: Slice) -> None:
        """All of it that was not refused is acknowledged."""
        accepted = part.accepted.total()
        self._accepted += accepted
        self._rejected += len(part.answers) - accepted
        self._write(",".join(part.answers))

    def add_in_doubt(self, part: Slice) -> None:
        """Not all of it is acknowledged, so none of it is called accepted."""
        unacknowledged = part.accepted.total()
        self._unacknowledged += unacknowledged
        self._rejected += len(part.answers) - unacknowledged
        self._write(
            ",".join(
                answer if index in part.refused else f'{{"index":{index},"errors":[{self._doubt}]}}'
                for index, answer in enumerate(part.answers, part.first)
            )
        )

    def send(self) -> None:
        """More is to come: let what is here go out."""
        if self._stream is None or not self._accepted:
            return
        if self.begun:
            self._stream.more(self._waiting.encode())
        else:
            self.begun = True
            self._stream.begin(Response(HTTPStatus.ACCEPTED, self._waiting.encode(), headers=self._headers))
        self._waiting = ""

    def end(self) -> Response | None:
        """The whole answer; none if the stream has it."""
        self._waiting += (
            f'],"accepted":{self._accepted},"rejected":{self._rejected},"unacknowledged":{self._unacknowledged}}}'
        )
        if self._stream is None or not self.begun:
            return Response(HTTPStatus.ACCEPTED, self._waiting.encode(), headers=self._headers)
        self._stream.more(self._waiting.encode())
        self._stream.end()
        return None

    def _write(self, items: str) -> None:
        self._waiting += self._comma + items
        self._comma = ","
