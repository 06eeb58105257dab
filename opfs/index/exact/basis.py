"""The rotation that puts what tells vectors apart into few numbers, and the bounds that follow from it; pure.

A basis changes how fast a search is and never what it finds: what is below holds for any `rotation` W, however far
from orthogonal, because its defect is measured and put into the margins. Let H_k be the first rows of W up to layer k
and T_k the others, x a row and q a query of length 1:

    q·x = H_k q · H_k x + T_k q · T_k x - q·(WᵀW - 1)x
    T_k q · T_k x <= |T_k q| |T_k x|                                    (Cauchy-Schwarz)

Layer k of a row holds the coordinates that it adds to H_k x, and |T_k x|; from the second on |T_(k-1) x| too, which
the bound of the layer before has added and this one takes away again. So one product of a layer with the right factors
gives the bound, or what to add to the bound of the layer before. All is float32; lengths are rounded up.

What float32 arithmetic is off by is in the margins: a sum of n products is off by at most nu/(1 - nu) times the sum of
their magnitudes, u = 2**-24, in whatever order it is added (Higham, Accuracy and Stability of Numerical Algorithms,
2nd ed., section 3.1), and that sum is at most the product of the lengths.

Thread-safe: nothing here changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYER_WIDTH = 64

LENGTH_LIMIT = 1.001
"""Rows are of this length at most; the margins count on it. What is longer is scored exactly in every search."""

# Each holds half as much again of what the one before left; after three, scores are known well enough.
_MOST_LAYERS = 3
# A layer for so many dimensions: with fewer there is little to leave out.
_DIMENSIONS_PER_LAYER = 2 * LAYER_WIDTH
_U = 2.0**-24
# Of a product, beside the sum: the rounding of both factors, of the margin and of the bound it is added to.
_SLACK = 8
# What float64 is off by in the rotation of a row.
_ROTATION_MARGIN = 1e-12
# The length of a row that is none: its bounds are above any score, also times the smallest factor.
_UNKNOWN = 1e30
_SMALLEST_FACTOR = 1e-12


@dataclass(frozen=True, slots=True)
class Aim:
    """A query of length 1 as the layers meet it."""

    factors: tuple[NDArray[np.float32], ...]
    """Times a row's layer: the upper bound of its score, or what to add to that of the layer before."""
    margins: tuple[np.float32, ...]
    """To be added to that, for what it may be too low by."""


@dataclass(frozen=True)
class Basis:
    """`rotation`: float64, shape (d, d), directions of most weight first."""

    rotation: NDArray[np.float64]

    @cached_property
    def splits(self) -> tuple[int, ...]:
        """How many coordinates the layers have, up to each."""
        return tuple((LAYER_WIDTH - 2) * number + 1 for number in range(1, layer_count(len(self.rotation)) + 1))

    @cached_property
    def _defect(self) -> float:
        """The length of WᵀW - 1, at most."""
        return float(np.linalg.norm(self.rotation.T @ self.rotation - np.eye(len(self.rotation))))

    def encode(self, rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The layers of the rows, each of shape (n, LAYER_WIDTH)."""
        with np.errstate(all="ignore"):
            wide = rows.astype(np.float64)
            turned = wide @ self.rotation.T
            is_usable = np.linalg.norm(wide, axis=1) <= LENGTH_LIMIT
        # A row that is no vector must not stain others, nor be lost: its bounds say nothing.
        turned[~is_usable] = 0
        layers: list[NDArray[np.float32]] = []
        start, before = 0, None
        for split in self.splits:
            length = _rounded_up(np.where(is_usable, np.linalg.norm(turned[:, split:], axis=1), _UNKNOWN))
            # The bound of an unusable row only grows: taking 1e30 away again would leave any number.
            layer = np.empty((len(rows), LAYER_WIDTH), dtype="<f4")
            layer[:, : split - start] = turned[:, start:split]
            if before is not None:
                layer[:, -2] = np.where(is_usable, before, 0)
            layer[:, -1] = length
            layers.append(layer)
            start, before = split, length
        return layers

    def aim(self, query: NDArray[np.float64]) -> Aim:
        """The query, which is of length 1, in this basis."""
        turned = self.rotation @ query
        factors, margins, start, before = [], [], 0, None
        # Once for all layers, in the first: what is off before any float32.
        margin = LENGTH_LIMIT * (self._defect + _ROTATION_MARGIN)
        for split in self.splits:
            length = _rounded_up(np.linalg.norm(turned[split:]) + _SMALLEST_FACTOR)
            lengths = [length] if before is None else [-before, length]
            factor = np.concatenate([turned[start:split], lengths])
            # A layer is no longer than its coordinates, its tail and the tail before: twice the square of a row.
            row_length = 2**0.5 * LENGTH_LIMIT
            sums = (LAYER_WIDTH + _SLACK) * _U * float(np.linalg.norm(factor)) * row_length
            margins.append(np.nextafter(np.float32(margin + sums + _SLACK * _U), np.float32(np.inf)))
            factors.append(factor.astype(np.float32))
            start, before, margin = split, length, 0.0
        return Aim(tuple(factors), tuple(margins))


def layer_count(dimensions: int) -> int:
    """How many layers rows of so many dimensions get; with none, the base file alone is searched."""
    return min(_MOST_LAYERS, dimensions // _DIMENSIONS_PER_LAYER)


def train(second_moment: NDArray[np.float64]) -> Basis:
    """The basis for rows whose mean of x xᵀ is given: its eigenvectors, by weight (principal components, not centred).

    Not centred, since scores are not: the mean is a direction like others, and mostly the first.
    """
    directions = np.linalg.eigh(second_moment).eigenvectors
    return Basis(np.ascontiguousarray(directions[:, ::-1].T))


def tail_share(layer: NDArray[np.float32]) -> float:
    """How much of the rows' weight the layer leaves, on average: the less, the fewer rows a search looks at."""
    return float(np.mean(np.minimum(layer[:, -1].astype(np.float64), 1.0) ** 2)) if len(layer) else 0.0


def _rounded_up(values: Any) -> NDArray[np.float32]:
    """float32 that are not below `values`, which are not negative and themselves off by 1e-9 at most."""
    return np.nextafter((np.asarray(values) * (1 + 1e-9) + 1e-30).astype(np.float32), np.float32(np.inf))
