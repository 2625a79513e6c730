"""What networks and their trainings share, whatever they learn."""
