"""Potluck: everyone brings a GPU."""

__version__ = "0.1.0"
