"""What a notebook gets: answers by name, each judged by simulating it again."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aimback.core.ledger import Ledger
from aimback.core.problem import Solution, StartStatus, Status
from aimback.data.targets import Targets
from aimback.evaluate.judge import Answers
from aimback.evaluate.tables import list_numbers, name_numbers
from aimback.library.wish import Wish
from aimback.report.text import count_noun, join_names, number
from aimback.simulators.quantity import Quantity, pin, split_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_SHOWN = 10  # answers in a notebook's table


@dataclass(frozen=True, repr=False)
class Answer:
    """Controls for one target or for many; of many, everything is an array with a row a target.

    Attributes:
        wish: the task, and what was found out about it.
        targets: what was asked.
        solution: all starts of all valid targets, see `Solution`.
        judged: the best of each target, simulated again.
        ledger: what it took; `simulations` are all calls of the simulator, those to find out about it too.
        seconds: of the solver.
    """

    wish: Wish
    targets: Targets
    solution: Solution
    judged: Answers
    ledger: Ledger
    seconds: float

    @property
    def status(self) -> Any:
        """What became of it in words, see `Status`: "solved", "missed", ...; of many targets an array of them."""
        words = np.array([Status(code).name.lower() for code in self.judged.status.tolist()])
        return str(words[0]) if self.wish.is_single else words

    @property
    def controls(self) -> dict[str, Any]:
        """The best controls by name, pinned ones too, so that `f(**answer.controls)` simulates the answer."""
        return {**self._name(self.wish.controls, self.judged.controls), **pin(self.wish.controls, np.array)}

    @property
    def outcome(self) -> dict[str, Any]:
        """What the simulator makes of them, by name."""
        return self._name(self.wish.outcomes, self.judged.outcome)

    @property
    def miss(self) -> Any:
        """How far that is from the target, in `wish.task.miss_unit`."""
        return self._take(self.judged.miss)

    @property
    def simulations(self) -> int:
        """How many cases the simulator was asked for."""
        return self.ledger.simulations

    def to_frame(self, starts: bool = False) -> "DataFrame":
        """A row a target, or with `starts` a row a start of each valid target, best first.

        Of the starts `believed_miss` and `start_status` are those of the route's own map; only the answers are
        simulated again.
        """
        from pandas import DataFrame

        if not starts:
            frame = DataFrame(list_numbers(self.targets, self.judged).numpy(), columns=name_numbers(self.wish.task))
            frame.insert(0, "status", np.atleast_1d(self.status))
            return frame
        solution, ranking = self.solution, self.solution.ranking().cpu()
        rows = self.targets.valid.nonzero()[:, 0].repeat_interleave(ranking.shape[1])
        controls = solution.controls.cpu().take_along_dim(ranking[..., None], 1).flatten(0, 1)
        frame = DataFrame(controls.double().numpy(), columns=[axis.label for axis in self.wish.task.box.axes])
        frame.insert(0, "target", rows.numpy())
        frame["believed_miss"] = _rank(solution.believed_miss, ranking).double().numpy()
        frame["start_status"] = [
            StartStatus(code).name.lower() for code in _rank(solution.start_status, ranking).tolist()
        ]
        frame["steps"] = _rank(solution.steps, ranking).numpy()
        return frame

    def plot(self) -> "Figure":
        """The answers as a figure of matplotlib."""
        from aimback.report.sketch import sketch_answers

        return sketch_answers(self.wish.task, self.targets, self.judged, self.solution)

    def __repr__(self) -> str:
        spent = f"{count_noun(self.simulations, 'simulation')}, {number(self.seconds)} s"
        unit, tolerance = self.wish.task.miss_unit, number(self.wish.task.tolerance)
        within = f"tolerance {tolerance} {unit}".rstrip()
        if self.wish.is_single:
            controls = ", ".join(f"{axis.name} = {value:.6g}" for axis, value in self._pair())
            miss = f"miss {number(float(self.judged.miss[0]))}, {within}"
            return f"{self.status}: {controls} ({miss}; {spent})"
        names, counts = np.unique(self.status, return_counts=True)
        others = [f"{count} {name}" for name, count in zip(names, counts, strict=True) if name != "solved"]
        rest = f" ({join_names(others)})" if others else ""
        solved = len(self.targets) - sum(int(text.partition(" ")[0]) for text in others)
        misses = self.judged.miss[self.targets.valid].nan_to_num(nan=torch.inf, posinf=torch.inf).sort().values
        middle = number(float(misses[len(misses) // 2]))
        return f"{solved} of {len(self.targets)} solved{rest}; median miss {middle}, {within}; {spent}"

    def _repr_html_(self) -> str:
        heads = ["status", *name_numbers(self.wish.task)]
        table = list_numbers(self.targets, self.judged)[:_SHOWN].tolist()
        lines = [[status, *map(number, row)] for status, row in zip(np.atleast_1d(self.status), table, strict=False)]
        more = f"<p>and {len(self.targets) - _SHOWN} more</p>" if len(self.targets) > _SHOWN else ""
        return f"<p>{html.escape(repr(self))}</p>{make_table(heads, lines)}{more}"

    def _pair(self) -> list[tuple[Any, float]]:
        return list(zip(self.wish.task.box.axes, self.judged.controls[0].tolist(), strict=True))

    def _name(self, quantities: "list[Quantity] | Any", values: Tensor) -> dict[str, Any]:
        return {name: self._take(part) for name, part in split_columns(quantities, values).items()}

    def _take(self, values: Tensor) -> Any:
        """A plain number or an array, without the row of a single target."""
        array = values.numpy()
        if not self.wish.is_single:
            return array
        return float(array[0]) if array.ndim == 1 else array[0]


def make_table(heads: list[str], lines: list[list[Any]]) -> str:
    """A table in HTML."""
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"


def _rank(values: Tensor, ranking: Tensor) -> Tensor:
    return values.cpu().gather(1, ranking).flatten()
