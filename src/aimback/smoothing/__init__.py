"""Randomised smoothing: what the direct route may descend before the simulator itself."""
