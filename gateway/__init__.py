"""The gateway: a stateless service that admits generations, finds workers for them, and relays their tokens."""

from tidegate.native.choice import search_path

__path__ = search_path(__name__, __path__)
