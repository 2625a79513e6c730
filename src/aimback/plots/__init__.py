"""The figures of a task: still ones (PNG), one that moves (GIF), and those that a page lets people turn and query."""
