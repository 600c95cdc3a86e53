"""An HTTP/2 edge for gRPC on asyncio (RFC 9113), whose unit of work is a read and not a message.

A sans-IO core turns bytes into calls of stream handlers, and methods into bytes (connection, streams); a thin shell
puts it on a socket (transport); on top stand a gRPC server, a client channel, and relays that pass DATA frames from one
connection to another without parsing them (server, channel, relay, splice). hyperframe and hpack do what they can.
"""

from tidegate.native.choice import search_path

__path__ = search_path(__name__, __path__)
