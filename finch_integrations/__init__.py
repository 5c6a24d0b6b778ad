"""Stub while building."""
__version__ = "0.1.0"
