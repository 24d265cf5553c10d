"""What stands before uWSGI's workers: how it works, and what is said where it cannot."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rawclient import RawClient, opening
from tests.server import PATIENCE, Server, eventually, free_port, uwsgi_binary


def works(client: RawClient) -> None:
    """Echo small and large, to its end."""
    client.echo("small")
    large = os.urandom(300_000)
    client.binary(large)
    assert client.message() == large
    assert client.leave().code == 1000


def test_the_router_without_websockets(serve) -> None:
    # It would pass the handshake on, and nothing after it.
    server = serve("gevent", "http-without-websockets")
    assert "--http-websockets" in server.log()
    answer = server.refused()
    assert answer.status == 501
    assert b"--http-websockets" not in answer.body
    assert server.get("/ready").status == 200


def test_a_router_beside_another_front_may_serve(serve) -> None:
    server = serve("gevent", options=["--http", f"127.0.0.1:{free_port()}"])
    with server.raw() as client:
        client.echo("through the socket")


def test_tls_that_uwsgi_speaks_itself(serve, certificate) -> None:
    port, pair = free_port(), ",".join(map(str, certificate))
    server = serve("gevent", options=["--https-socket", f"127.0.0.1:{port},{pair}"])
    assert "--https-socket" in server.log()
    context = ssl.create_default_context(cafile=str(certificate[0]))
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


def test_several_processes_of_the_router(serve) -> None:
    server = serve("gevent", "http", options=["--http-processes", "3"])
    with ExitStack() as stack:
        for client in [stack.enter_context(server.raw()) for _ in range(10)]:
            works(client)


def test_the_fastrouter(serve) -> None:
    server = serve("gevent", "nginx-fastrouter")
    with server.raw(headers={"Origin": f"http://{server.address}"}) as client:
        works(client)


def test_a_router_that_workers_subscribe_to(serve, tmp_path: Path) -> None:
    public, subscriptions, inner = (f"127.0.0.1:{free_port()}" for _ in range(3))
    command = [uwsgi_binary(), "--master", "--http", public, "--http-websockets"]
    command += ["--http-subscription-server", subscriptions]
    with (tmp_path / "router.log").open("wb") as log:
        router = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        subscription = f"server={subscriptions},key={public},addr={inner}"
        options = ["--socket", inner, "--subscribe2", subscription]
        serve("gevent", options=options)
        host, port = public.split(":")

        def try_to_open() -> RawClient | None:
            client = RawClient((host, int(port)), PATIENCE)
            try:
                client.handshake("/echo", headers={"Origin": f"http://{public}"})
            except (OSError, EOFError):
                client.close()
                return None
            return client

        with eventually(try_to_open, "the subscription", interval=0.2) as client:
            works(client)
    finally:
        router.send_signal(signal.SIGINT)
        router.wait(PATIENCE)


def test_nginx_without_http11_is_told_of_in_the_log(serve) -> None:
    server = serve("gevent", "nginx-proxy-http10")
    for _ in range(2):
        answer = server.refused()
        assert answer.status == 400
    assert server.log().count("nginx needs proxy_http_version 1.1; proxy_set_header Upgrade") == 1


def test_nginx_behind_another_port(shared_server) -> None:
    # $http_host is the public one, as the page's origin is.
    server = shared_server("gevent", "nginx-proxy")
    public = {"Host": "example.org:8443", "Origin": "https://example.org:8443"}
    with server.raw(headers=public) as client:
        works(client)


class Activated(Server):
    """A server whose listening socket comes from its parent, as systemd has it."""

    def _popen(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        # sd_listen_fds(3): the sockets begin at 3, and are for the process of that number.
        become = (
            "import os, sys; os.dup2(0, 3); os.environ.update(LISTEN_FDS='1', "
            "LISTEN_PID=str(os.getpid())); os.execv(sys.argv[1], sys.argv[1:])"
        )
        command = ["fd://3" if word == self.address else word for word in command]
        with socket.create_server((self.host, self.port)) as listener, log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-c", become, *command],
                cwd=self.directory,
                env=self.environment,
                stdin=listener,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.mark.slow
def test_socket_activation(tmp_path: Path, watch) -> None:
    server = watch.add(Activated(tmp_path, "gevent"))
    try:
        server.start()
        assert "SystemD socket activation detected" in server.log()
        with server.raw() as client:
            works(client)
    finally:
        server.stop()
