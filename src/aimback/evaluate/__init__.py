"""Every answer simulated again, and judged."""
