"""Speed, side by side with what a user would do instead. Never part of the tests."""
