"""The surrogate route's forward map: a network trained on simulated examples."""
