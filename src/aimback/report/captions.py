"""What each figure of a page is for: its title, what to look for, and where it stands."""

from dataclasses import dataclass
from typing import Literal

Place = Literal["lead", "pair", "more"]


@dataclass(frozen=True)
class Kind:
    """A figure that a task may have.

    Attributes:
        title: over the figure.
        caption: what to look for.
        place: "lead" fills the width, "pair" shares it, "more" is folded away.
    """

    title: str
    caption: str
    place: Place


KINDS = {
    "surfaces": Kind(
        "The two losses",
        "The loss of one target over the controls, true and through the network: see whether the descents end where "
        "the true one is least (open rings: starts, diamonds: ends). Height is the loss, shade its logarithm; turning "
        "one turns the other.",
        "lead",
    ),
    "sweep": Kind(
        "The target sweeps",
        "The same two losses while the target moves through its range, with descents from the same four starts (rings: "
        "starts, stars: ends): see where the network's valley leaves the true one, and what its best answer misses by. "
        "With more than two controls the shades are a slice, and the paths are seen through it.",
        "lead",
    ),
    "trajectories": Kind(
        "Flown again",
        "Answers to a few targets, re-simulated: see how far from its cross each one ends.",
        "lead",
    ),
    "basins": Kind(
        "From where it works",
        "The share of targets that are truly hit from each start: bright is all of them, and the number the mean over "
        "the box. See whether there are corners from which a route fails.",
        "lead",
    ),
    "miss": Kind(
        "How far the answers miss",
        "The share of targets missed by at most so much: further left is better, and what is left of the dotted line "
        "is solved.",
        "pair",
    ),
    "loss": Kind(
        "Step by step",
        "The same descents twice: what each route believes, and what is true (median, 10 % to 90 % of targets); where "
        "only the truth flattens, the route's own map is the limit and not the solver.",
        "pair",
    ),
    "r_t": Kind(
        "The best of T candidates",
        "The published metric r_T: the least squared miss among the T candidates that a route ranks first (median, "
        "quartiles of targets). Lower is better; a flat curve gains nothing from more simulations.",
        "pair",
    ),
    "iterations": Kind(
        "Plain gradient descent",
        "C2: how fast the starts truly hit, each route at its own best step size, and how much it depends on it.",
        "pair",
    ),
    "belief": Kind(
        "Belief and truth",
        "C1: every answer of the surrogate route, by what it believed and what is true. In the upper left lie those "
        "that it took for hits and that miss.",
        "more",
    ),
    "conditioning": Kind(
        "Conditioning",
        "C6: how badly conditioned the descents are, and the curvature at the solutions (medians, 10 % to 90 %); an "
        "eigenvalue near zero is a direction along which all is equally good.",
        "more",
    ),
    "gradients": Kind(
        "Gradients",
        "C7: the simulator's gradient against central differences of several widths (a V is what rounding and "
        "curvature make of a right one), and whether the network's gradient points the same way.",
        "more",
    ),
    "fidelity": Kind(
        "Better networks",
        "C9: networks of data sets of several sizes, a dot each, by what their answers miss by: see whether those with "
        "a lesser forward error miss by less, or rather those whose gradient points the right way.",
        "more",
    ),
    "training": Kind(
        "How the network learned",
        "Two curves drawing apart would mean that it learns examples by heart, both flat that more training does not "
        "help.",
        "more",
    ),
}
