"""aimback: find the controls that make a simulator hit a target, by several routes, and compare them."""

__version__ = "0.1.0"
