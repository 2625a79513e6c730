"""A solve made ready once, for many calls of few targets each."""

import math
import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.core.ledger import Counted
from aimback.core.problem import UNLESS_HIT, StartStatus, Status
from aimback.solve.program import Buffers, Program
from aimback.solve.step import Iteration

_BELIEVED = UNLESS_HIT | {StartStatus.ARRIVED: Status.BELIEVED}
_CODES = np.array([_BELIEVED[start] for start in StartStatus], dtype=np.int8)


class Believed(NamedTuple):
    """Answers that nobody has simulated again: what the forward map itself says of them.

    Attributes:
        controls: of each target's best start, `(n_targets, n_controls)`, in the units of the box.
        believed_miss: `(n_targets,)`, see `Solution`.
        status: codes of `Status`, `(n_targets,)`: `believed` where the map believes in a hit, `invalid_input` where
            something that was given is not finite (its answer is NaN), else how the best start has stopped.
    """

    controls: npt.NDArray[Any]
    believed_miss: npt.NDArray[Any]
    status: npt.NDArray[np.int8]


class _Room:
    """Buffers for so many targets and starts, as arrays too."""

    def __init__(self, iteration: Iteration, program: Program, shape: tuple[int, int]) -> None:
        like = iteration.problem.targets
        widths = like.shape[1], iteration.problem.conditions.shape[1], shape[1] * len(iteration.problem.box)
        ends = np.cumsum([shape[0] * width for width in widths])
        # What is read is in one piece, so that one look tells whether all of it is finite.
        flat = torch.zeros(int(ends[-1]), dtype=like.dtype)
        asked = [
            part.unflatten(0, (shape[0], width))
            for part, width in zip(flat.tensor_split(ends[:-1].tolist()), widths, strict=True)
        ]
        self.unit = asked[2].unflatten(1, (shape[1], -1))
        buffers = Buffers.allocate(asked[0], asked[1], self.unit, iteration.solver.max_steps, 0)
        self.flat = flat.numpy()
        self.targets, self.conditions, self.starts = asked[0].numpy(), asked[1].numpy(), self.unit.numpy()
        self.found = torch.empty_like(buffers.best)
        self.controls = self.found.numpy()
        self.best, self.tally = buffers.best, buffers.tally.numpy()
        self.miss, self.status = buffers.miss.numpy(), buffers.status.numpy()
        self.run = program(buffers)
        self.shape = shape


class _Own(threading.local):
    """What each thread has for itself."""

    room: _Room | None = None


class Handle:
    """Takes arrays and gives arrays, with as little around the program as there can be: no checks but that all is
    finite, no paths, no memory of its own a call, no simulating again.

    The answers have the bits of `solve` from the same starts. Threads may share it: each has buffers of its own.

    Args:
        iteration: its problem says everything but what is asked: box, distance, dtype, how many conditions.
        program: compiled from it, for the CPU.

    Raises:
        UserError: the solver's walls are soft, so an arrival may lie outside of the box; or a program for a GPU.
    """

    def __init__(self, iteration: Iteration, program: Program) -> None:
        if iteration.solver.boundary is not None or iteration.problem.targets.device.type != "cpu":
            raise UserError("a handle is for solvers that keep to the box, on the CPU")
        self._iteration, self._program = iteration, program
        self._bounds = iteration.problem.box.bounds(iteration.problem.targets)
        self._own = _Own()

    def believe(self, targets: Any, conditions: Any, starts: Any) -> Believed:
        """Find controls for targets, and tell what the forward map itself says of them.

        Args:
            targets: `(n_targets, n_outcomes)`, or `(n_targets,)` of one outcome.
            conditions: `(n_targets, n_conditions)`, or `(n_targets,)` of one condition; None where there are none.
            starts: `(n_targets, n_starts, n_controls)`, in the unit cube.

        Raises:
            UserError: shapes that do not fit.
        """
        array = np.asarray(starts)
        if array.ndim != 3 or array.shape[1] == 0:
            raise UserError(f"starts: must be (n_targets, n_starts, n_controls), got the shape {array.shape}")
        room = self._find_room(array.shape[:2])
        _fill(room.starts, array, "starts")
        _fill(room.targets, targets, "targets")
        if conditions is not None or room.conditions.size:
            _fill(room.conditions, conditions, "conditions")
        # The quickest way to see that all of it is finite.
        bad = None if math.isfinite(room.flat @ room.flat) else _blank(room)
        room.unit.clamp_(0, 1)
        room.run()
        iteration, each = self._iteration, array.shape[1]
        if isinstance(iteration.forward, Counted):
            iteration.forward.count(int(room.tally[1]), gradients=True)
        # As `Box.from_unit`: torch interpolates from the nearer end, so exactly at both.
        torch.lerp(*self._bounds, room.best, out=room.found)
        controls, miss, code = room.controls, room.miss * iteration.problem.distance.span, room.status
        if each == 1:
            controls = controls.copy()
        else:
            # A miss is never NaN: it is infinite until there is a better one.
            rows = np.arange(0, len(miss), each) + miss.reshape(-1, each).argmin(1)
            controls, miss, code = controls[rows], miss[rows], code[rows]
        status = _CODES.take(code)
        if bad is not None:
            controls[bad], miss[bad], status[bad] = np.nan, np.nan, Status.INVALID_INPUT
        return Believed(controls, miss, status)

    def _find_room(self, shape: tuple[int, int]) -> _Room:
        """The buffers of this thread; those of the last call, if it was of the same shape."""
        room = self._own.room
        if room is None or room.shape != shape:
            room = self._own.room = _Room(self._iteration, self._program, shape)
        return room


def _fill(place: npt.NDArray[Any], values: Any, name: str) -> None:
    array = np.asarray(values)
    if array.shape != place.shape and (place.shape[1] != 1 or array.shape != place.shape[:1]):
        raise UserError(f"{name}: must be of the shape {place.shape}, got {array.shape}")
    try:
        place[...] = array if array.ndim == place.ndim else array[:, None]
    except (TypeError, ValueError):
        raise UserError(f"{name}: must be numbers, got {quote(values)}") from None


def _blank(room: _Room) -> npt.NDArray[np.bool_]:
    """Find the targets with something that is not finite, and put zeros in their places."""
    parts = [part.reshape(len(part), -1) for part in (room.targets, room.conditions, room.starts)]
    bad: npt.NDArray[np.bool_] = ~np.logical_and.reduce([np.isfinite(part).all(1) for part in parts])
    for part in parts:
        part[bad] = 0
    return bad
