import pytest

from libs.storage.command_tags import rows_of_tag


@pytest.mark.parametrize(("tag", "rows"), [("INSERT 0 3", 3), ("UPDATE 0", 0), ("DELETE 12", 12), ("COPY 5000", 5000)])
def test_a_tag_ends_with_its_rows(tag: str, rows: int) -> None:
    assert rows_of_tag(tag) == rows
