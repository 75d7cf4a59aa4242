from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from libs.contracts.construction import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    name: str
    at: Point = Point(1)


def test_it_takes_the_same_arguments() -> None:
    assert (Point(1, 2), Point(1), Point(x=3)) == (Point(x=1, y=2), Point(1, 0), Point(3, 0))
    assert repr(Named(name="a")) == "Named(name='a', at=Point(x=1, y=0))"
    assert replace(Point(1, 2), y=5) == Point(1, 5)
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            Point(*wrong)
    with pytest.raises(TypeError):
        Named("a")  # type: ignore[misc]


def test_it_stays_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        Point(1).z = 2  # type: ignore[attr-defined]


def test_what_it_can_not_do_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Made:
        values: list[int] = field(default_factory=list)

    with pytest.raises(TypeError, match=r"Made\.values"):
        quickly_made(Made)
