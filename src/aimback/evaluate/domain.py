"""Where there are data: a network says something of any controls, and knows something only of those near to them."""

import torch
from torch import Tensor

from aimback.core.box import Box

SHARE_INSIDE = 0.99
_MOST = 10_000  # rows of the data; with more of them the rule asks how near a random part of them is
_ROWS = 512  # that are compared with all others at once


class Domain:
    """The places that are as near to the data as the data are to themselves.

    The rule: in the unit cube of controls and conditions, how far a place is from the data is its mean distance to as
    many of the nearest rows as the cube has dimensions, and one more. A place lies outside where it is farther than
    99 % of the rows are from the other rows, rows of the same place counting once. So of new places from where the data
    come from about 1 % are called outside.

    Args:
        controls, conditions: of the data, `(n, ...)` each, in random order; two places at least.
        box, ranges: of the controls and of the conditions.
    """

    def __init__(self, controls: Tensor, conditions: Tensor, box: Box, ranges: Box) -> None:
        self._boxes = box, ranges
        rows = self._find_places(controls, conditions)[:_MOST]
        self._data = torch.unique(rows, dim=0)
        own = self._measure(self._data, itself=1)
        self._limit = own.sort().values[round(SHARE_INSIDE * (len(own) - 1))]

    def is_outside(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """Which places lie outside, `(n, ...)` each -> `(n,)`; a NaN does not."""
        return self._measure(self._find_places(controls, conditions)) > self._limit

    def _find_places(self, controls: Tensor, conditions: Tensor) -> Tensor:
        box, ranges = self._boxes
        return torch.cat([box.to_unit(controls), ranges.to_unit(conditions)], dim=1)

    def _measure(self, places: Tensor, itself: int = 0) -> Tensor:
        """How far places are from the data; `itself` of the nearest rows do not count."""
        count = min(self._data.shape[1] + 1 + itself, len(self._data))
        # Not by products of matrices, which lose the digits of small distances.
        found = [
            torch.cdist(some, self._data, compute_mode="donot_use_mm_for_euclid_dist")
            .topk(count, dim=1, largest=False)
            .values[:, itself:]
            .mean(1)
            for some in places.split(_ROWS)
        ]
        return torch.cat(found) if found else places.new_zeros(0)
