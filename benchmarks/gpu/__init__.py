"""What a GPU is asked to show, in parts of a minute or two."""
