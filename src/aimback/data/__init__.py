"""What files hold, checked: data sets, targets, solutions, and which task they were made for."""
