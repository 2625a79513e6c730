"""One program for a whole solve: the writer of a row's step, and the frame that takes rows through it."""
