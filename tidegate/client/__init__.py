"""The Python client of Tidegate; ``python -m tidegate.client`` is the ``tidegate`` command."""

from tidegate.client.client import Client
from tidegate.client.errors import TidegateError
from tidegate.client.received import Event
from tidegate.client.retry import RetryPolicy

__all__ = ["Client", "Event", "RetryPolicy", "TidegateError"]
