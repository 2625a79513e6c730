"""aimback without a project: from a notebook, in this process, with nothing written. See `aimback.invert`."""
