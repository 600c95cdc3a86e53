"""What gateway and worker tell their operators: names, metrics, the admin port, logs."""

from tidegate.native.choice import search_path

__path__ = search_path(__name__, __path__)
