"""What the routes look like in every figure."""

from typing import TypeVar

T = TypeVar("T")


class _Looks(dict[str, T]):
    """A look for each route: those of the usual routes are known, any other takes the next one of a cycle, in the
    order in which routes are first asked for."""

    def __init__(self, known: dict[str, T], others: list[T]) -> None:
        super().__init__(known)
        self._others, self._asked = others, 0

    def __missing__(self, route: str) -> T:
        self[route] = self._others[self._asked % len(self._others)]
        self._asked += 1
        return self[route]


# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour blindness.
COLOURS = _Looks(
    {"direct": "#0072B2", "surrogate": "#D55E00", "hybrid": "#009E73"},
    ["#CC79A7", "#E69F00", "#56B4E9", "#8A7F00", "#6A3D9A", "#7F7F7F"],
)
LINES = _Looks({"direct": "-", "surrogate": "--", "hybrid": "-."}, [":", "--", "-.", "-"])
