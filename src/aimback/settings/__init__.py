"""The schema of conf/: one tree of models, of which every wrong value is one line that names its key."""
