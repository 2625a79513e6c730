"""The simulators, one file a family; each is a `Task`."""
