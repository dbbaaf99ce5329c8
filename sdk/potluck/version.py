"""The one place of the version number besides pyproject.toml; a test compares the two."""

__version__ = "0.1.0"
