"""One loop, one file a solver; `multistart.solve` is the door."""
