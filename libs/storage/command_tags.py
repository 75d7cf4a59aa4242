"""What PostgreSQL says of a statement that is done."""

from __future__ import annotations


def rows_of_tag(tag: str) -> int:
    """How many rows a statement has made, changed or deleted: the last word of its tag (`INSERT 0 3`, `DELETE 3`)."""
    return int(tag.rpartition(" ")[2])
