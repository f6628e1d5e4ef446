"""Measurements -> one number an example."""
