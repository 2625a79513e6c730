"""The hybrid route's network: from a target straight to controls, learned through the simulator."""
