"""Fronts of uWSGI's behind which WebSockets cannot work: refused, and said at the start."""

from __future__ import annotations

import socket
import ssl
import subprocess

import pytest

from tests.rawclient import Refused, opening
from tests.server import free_port


def test_the_router_without_websockets(serve) -> None:
    # It would pass the handshake on, and nothing after it.
    server = serve("gevent", "http-without-websockets")
    assert "--http-websockets" in server.log()
    with pytest.raises(Refused) as caught:
        server.raw().close()
    assert caught.value.answer.status == 501
    assert b"--http-websockets" not in caught.value.answer.body
    assert server.get("/ready").status == 200


def test_a_router_beside_another_front_may_serve(serve) -> None:
    server = serve("gevent", options=["--http", f"127.0.0.1:{free_port()}"])
    with server.raw() as client:
        client.text("through the socket")
        assert client.message() == "through the socket"


def test_tls_that_uwsgi_speaks_itself(serve, tmp_path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names],
        check=True,
        capture_output=True,
    )
    port = free_port()
    server = serve("gevent", options=["--https-socket", f"127.0.0.1:{port},{certificate},{key}"])
    assert "--https-socket" in server.log()
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain) as secure,
    ):
        secure.sendall(opening("/echo", f"127.0.0.1:{port}"))
        answer = b""
        while b"log says why" not in answer and (more := secure.recv(65536)):
            answer += more
    assert b" 501 " in answer.splitlines()[0]
    assert b"--https" not in answer
    assert "refused: WebSockets don't work behind --https-socket" in server.log()
    assert "use --https " in server.log()
