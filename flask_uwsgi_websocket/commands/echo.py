"""A small client for the terminal, on the codec's client side."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from html import unescape
from http.client import HTTPException, HTTPResponse
from socket import SHUT_RDWR, create_connection, socket
from threading import Lock
from urllib.parse import SplitResult, urlsplit

from werkzeug.urls import iri_to_uri

from ..codec import CLIENT, Close, Fail, Ping, Pong, Protocol, request_headers, validate_response
from ..codec.handshake import new_key
from ..exceptions import HandshakeError, ProtocolError
from ..helpers.text import printable

#: Bytes of a response's body that are read, to tell why a handshake was refused.
MAX_BODY = 65536
MAX_MESSAGE_SIZE = 1 << 30


class Peer:
    """A connection to a server.

    :param url: ws:// or wss://, or only a path on ``flask run``'s address.
    :param tls: how to speak TLS, where that is not as the system has it.
    :raises ValueError: for another URL.
    :raises OSError: when there is nobody.
    :raises HandshakeError: when the server refuses; the reason quotes its answer.
    """

    def __init__(
        self,
        url: str,
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        timeout: float = 10,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts, key = _split(url), new_key()
        fields = request_headers(parts.netloc, key, subprotocols=subprotocols, origin=origin)
        self._socket = _connect(parts, timeout, tls)
        self._socket.sendall(_request(parts, [*fields, *headers]))
        self._response = _response(self._socket)
        accepted = validate_response(101, self._response.headers, key, subprotocols)
        self._socket.settimeout(None)
        self._protocol = Protocol(CLIENT, max_message_size=MAX_MESSAGE_SIZE)
        self._lock = Lock()
        self.subprotocol = accepted.subprotocol
        self.close_code = 1006
        self.close_reason = ""

    def send(self, message: str) -> None:
        """Send a text message."""
        with self._lock:
            self._socket.sendall(self._protocol.text(message))

    def close(self) -> None:
        """Send Close; :meth:`messages` ends when the server has answered it."""
        with self._lock:
            if not self._protocol.close_sent:
                self._socket.sendall(self._protocol.close(1000))

    def messages(self) -> Iterator[str | bytes]:
        """Yield what comes, until the connection ends; then ``close_code`` says how."""
        try:
            # By way of the response, with which the first of it may have been read.
            while data := self._response.fp.read1(65536):
                for event in self._protocol.receive_data(data):
                    if isinstance(event, (str, bytes)):
                        yield event
                    else:
                        self._handle(event)
                        if isinstance(event, (Close, Fail)):
                            return
        except (OSError, ProtocolError):
            return
        finally:
            with suppress(OSError):
                self._socket.shutdown(SHUT_RDWR)
            self._response.close()
            self._socket.close()

    def _handle(self, event: Ping | Pong | Close | Fail) -> None:
        if isinstance(event, Ping):
            with self._lock:
                self._socket.sendall(self._protocol.pong(event.data))
        elif isinstance(event, Close):
            self.close_code, self.close_reason = event.code, event.reason
            self.close()
        elif isinstance(event, Fail):
            self.close_code, self.close_reason = 1002, event.error.reason


def _split(url: str) -> SplitResult:
    if url.startswith("/"):
        url = f"ws://127.0.0.1:5000{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url} is neither a ws:// or wss:// URL nor a path")
    return urlsplit(iri_to_uri(url))


def tls_context(cafile: str | None, insecure: bool) -> ssl.SSLContext:
    """Make what speaks TLS with servers that a file's authorities vouch for, or with any.

    :raises OSError: for a file that has no certificates.
    """
    context = ssl.create_default_context(cafile=cafile)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connect(parts: SplitResult, timeout: float, tls: ssl.SSLContext | None) -> socket:
    secure = parts.scheme == "wss"
    sock = create_connection((parts.hostname, parts.port or (443 if secure else 80)), timeout)
    if secure:
        context = tls or tls_context(None, insecure=False)
        try:
            sock = context.wrap_socket(sock, server_hostname=parts.hostname)
        except BaseException:
            sock.close()
            raise
    return sock


def _request(parts: SplitResult, fields: Iterable[tuple[str, str]]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _response(sock: socket) -> HTTPResponse:
    response = HTTPResponse(sock)
    try:
        response.begin()
    except HTTPException:
        raise HandshakeError(400, "the server did not answer with HTTP") from None
    if response.status == 101:
        return response
    body = b""
    with suppress(OSError, HTTPException):
        body = response.read(MAX_BODY)
    gist = printable(_gist(body.decode(errors="replace")))
    raise HandshakeError(response.status, f"the server answered {response.status}: {gist}")


def _gist(body: str) -> str:
    """Return what a terminal shows of an answer: a page's title, or the text."""
    title = re.search("<title>(.*?)</title>", body, re.DOTALL | re.IGNORECASE)
    return " ".join(unescape(title[1]).split()) if title else body.strip()
