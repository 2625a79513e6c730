"""The contest on the field's own benchmark: published numbers beside measured ones, and who wins what."""
