"""The networks and their training by Lightning: the surrogate and the hybrid route's proposer."""
