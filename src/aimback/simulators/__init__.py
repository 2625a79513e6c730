"""Simulators that we did not write: how they are described, called, differentiated and kept from doing harm."""
