"""Faults by the hundred, and what must hold after each: `python -m benchmarks.campaigns`; never part of the tests."""
