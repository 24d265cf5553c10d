"""A small client for the terminal, on the codec's client side."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import unescape
from socket import SHUT_RDWR, create_connection
from threading import Lock
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers
from werkzeug.urls import iri_to_uri

from ..codec import CLIENT, Close, Fail, Ping, Protocol, request_headers, validate_response
from ..codec.handshake import new_key
from ..exceptions import HandshakeError, ProtocolError
from ..helpers.text import printable

#: A response's headers that are longer than this are not those of a handshake.
MAX_HEADERS = 65536
MAX_MESSAGE_SIZE = 1 << 30


class Peer:
    """A connection to a server.

    :param url: ws:// or wss://, or only a path on ``flask run``'s address.
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
    ) -> None:
        if url.startswith("/"):
            url = f"ws://127.0.0.1:5000{url}"
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"{url} is neither a ws:// or wss:// URL nor a path")
        parts = urlsplit(iri_to_uri(url))
        secure = parts.scheme == "wss"
        self._socket = create_connection(
            (parts.hostname, parts.port or (443 if secure else 80)), timeout
        )
        if secure:
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)
        self._protocol = Protocol(CLIENT, max_message_size=MAX_MESSAGE_SIZE)
        self._lock = Lock()
        self.close_code = 1006
        self.close_reason = ""
        key = new_key()
        fields = [
            *request_headers(parts.netloc, key, subprotocols=subprotocols, origin=origin),
            *headers,
        ]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        status, answer, self._early = self._read_response()
        if status != 101:
            body = _gist(self._read_body(answer).decode(errors="replace"))
            raise HandshakeError(status, f"the server answered {status}: {printable(body)}")
        self.subprotocol = validate_response(status, answer, key, subprotocols).subprotocol
        self._socket.settimeout(None)

    def _read_response(self) -> tuple[int, Headers, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self._socket.recv(4096)
            if not more or len(data) > MAX_HEADERS:
                raise HandshakeError(400, "the server did not answer with HTTP")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(":")
            headers.add(name, value.strip())
        try:
            return int(first.split()[1]), headers, rest
        except (IndexError, ValueError):
            raise HandshakeError(400, "the server did not answer with HTTP") from None

    def _read_body(self, headers: Headers) -> bytes:
        body = self._early
        length = min(headers.get("Content-Length", 0, type=int), MAX_HEADERS)
        with suppress(OSError):
            while len(body) < length and (more := self._socket.recv(4096)):
                body += more
        return body

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
        """What comes, until the connection ends; then ``close_code`` says how."""
        data = self._early
        try:
            while True:
                for event in self._protocol.receive_data(data) if data else ():
                    if isinstance(event, (str, bytes)):
                        yield event
                    elif isinstance(event, Ping):
                        with self._lock:
                            self._socket.sendall(self._protocol.pong(event.data))
                    elif isinstance(event, Close):
                        self.close_code, self.close_reason = event.code, event.reason
                        self.close()
                        return
                    elif isinstance(event, Fail):
                        self.close_code, self.close_reason = 1002, event.error.reason
                        return
                data = self._socket.recv(65536)
                if not data:
                    return
        except (OSError, ProtocolError):
            return
        finally:
            with suppress(OSError):
                self._socket.shutdown(SHUT_RDWR)
            self._socket.close()


def _gist(body: str) -> str:
    """Give what a terminal shows of an answer: a page's title, or the text."""
    title = re.search("<title>(.*?)</title>", body, re.DOTALL | re.IGNORECASE)
    return " ".join(unescape(title[1]).split()) if title else body.strip()
