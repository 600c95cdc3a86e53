"""The Python side of the wire: generated code, what both services agree on, and the client."""

__version__ = "0.1.0"
