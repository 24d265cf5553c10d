"""RFC 6455 and RFC 7692 without I/O: the reference this package stands on.

==================  =======================================================
``frames``          5.2, 5.3, 5.5, 7.4: header bits, opcodes, close codes, masking
``fast_path``       a small message in one frame, in and out: the fast path
``messages``        5.4, 8.1: messages that come in pieces
``events``          what is received
``receiving``       5, 6.2, 7.1.7, 8: one connection's bytes in, events out
``protocol``        6.1, 7: and its frames out; both roles, the closing states; frames
                    of a message for many connections
``deflate``         RFC 7692: negotiation and compression
``handshake``       4: the opening handshake, both sides
==================  =======================================================

It imports nothing of this package but its exceptions.
"""

from __future__ import annotations

from .deflate import Deflate, DeflateSettings, negotiate
from .events import Close, Event, Fail, Ping, Pong
from .handshake import (
    Extension,
    UpgradeRequest,
    UpgradeResponse,
    accept_key,
    request_headers,
    response_headers,
    select_subprotocol,
    validate_request,
    validate_response,
)
from .protocol import CLIENT, SERVER, Frames, Protocol, Role, encode_message

__all__ = [
    "CLIENT",
    "SERVER",
    "Close",
    "Deflate",
    "DeflateSettings",
    "Event",
    "Extension",
    "Fail",
    "Frames",
    "Ping",
    "Pong",
    "Protocol",
    "Role",
    "UpgradeRequest",
    "UpgradeResponse",
    "accept_key",
    "encode_message",
    "negotiate",
    "request_headers",
    "response_headers",
    "select_subprotocol",
    "validate_request",
    "validate_response",
]
