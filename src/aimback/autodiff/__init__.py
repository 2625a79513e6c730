"""Derivatives in one pass, and integration to events."""
