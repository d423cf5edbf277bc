"""usk, the urban sound kit."""
__version__ = "0.1.0"
