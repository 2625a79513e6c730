"""Is the true loss smoother, more robust, faster, better conditioned? Every claim measured, on any task."""
