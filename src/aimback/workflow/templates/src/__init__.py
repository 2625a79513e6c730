"""What aimback is asked about: your simulator."""
