"""A folder that stands for a machine, and has the files of docs/deploy/ where the docs put them.

A test has paths, ports and names of its own: they take the place of what a file has there. What the
file does not have any more is an error, so that files and tests keep together.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.server import BANNER, COMPLAINT, PATIENCE, ROOT, eventually

DEPLOY = ROOT / "docs/deploy"


class Machine:
    """Where programs run, what they log, and their end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def put(self, source: str, target: str, words: Mapping[str, str] | None = None) -> Path:
        """Install a file of docs/deploy/, with other words for those that it must have."""
        text = (DEPLOY / source).read_text()
        for old, new in (words or {}).items():
            assert old in text, f"docs/deploy/{source} has no {old!r}"
            text = text.replace(old, new)
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def here(self, *paths: str) -> dict[str, str]:
        """The words for paths: the same ones, below this folder."""
        return {path: str(self.path(path)) for path in paths}

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                cwd=self.root,
                env=without_flask(os.environ) | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.running[name]

    def _log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def log(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")

    def complaints(self) -> list[str]:
        return [
            line
            for name in self.running
            for line in self.log(name).splitlines()
            if COMPLAINT.search(line) and not BANNER.search(line)
        ]

    def stop(self, name: str, signum: int = signal.SIGTERM) -> None:
        """Ask a program to end, then end it: its own process group, nothing else."""
        process = self.running[name]
        for ask in (signum, signal.SIGKILL):
            try:
                if process.poll() is None:
                    process.send_signal(ask)
                process.wait(PATIENCE)
                break
            except subprocess.TimeoutExpired:
                continue
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left

    def close(self) -> None:
        for name in reversed(self.running):
            self.stop(name)


@contextmanager
def machine(root: Path) -> Iterator[Machine]:
    """A machine whose programs end with the test, and whose logs are seen where it fails."""
    built = Machine(root)
    try:
        yield built
        assert not built.complaints()
    except BaseException:
        for name in built.running:
            print(f"== {name}\n{built.log(name)[-6000:]}")
        raise
    finally:
        built.close()


def without_flask(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("FLASK_")}


#: What is around a site.
NGINX = """
daemon off;
master_process off;
pid {root}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    include /etc/nginx/mime.types;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    include {site};
}}
"""


def start_nginx(built: Machine, site: Path, port: int) -> None:
    """Start nginx with a site, as its package and its image have it, until a port is open."""
    folder = built.path("/etc/nginx")
    (folder / "uwsgi_params").symlink_to("/etc/nginx/uwsgi_params")
    (folder / "nginx.conf").write_text(NGINX.format(site=site, root=built.root))
    command = [program("nginx"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    nginx = built.start("nginx", command)
    eventually(lambda: nginx.poll() is not None or is_open(port), "nginx to listen")


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def program(name: str) -> str:
    """Where a program is, also if the shell of who runs the tests does not look there."""
    places = ":".join([sysconfig.get_path("scripts"), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=places) or shutil.which(name)
    assert found, f"no {name} here: bash tests/run.sh installs it"
    return found


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate, signed by itself, and its key."""
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    command = [program("openssl"), "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
    command += ["-addext", f"subjectAltName=DNS:{host}"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    return certificate, key


def link_environment(target: Path) -> None:
    """Have the environment that runs the tests stand for the one that the docs make."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(sys.prefix)


def secure(port: int, path: str, certificate: Path, host: str, **options: str) -> ClientConnection:
    """A WebSocket over TLS to a port of this machine, as a page of that host opens it."""
    context = ssl.create_default_context(cafile=str(certificate))
    return connect(
        f"wss://{host}{path}",
        ssl=context,
        server_hostname=host,
        sock=socket.create_connection(("127.0.0.1", port), PATIENCE),
        origin=options.get("origin", f"https://{host}"),  # type: ignore[arg-type]
        open_timeout=PATIENCE,
        max_queue=None,  # some do not read what they get, and end all the same
        proxy=None,
    )


def code_at_end(client: ClientConnection) -> int | None:
    """The code with which the server closes; messages before it are passed over."""
    try:
        while True:
            client.recv(PATIENCE)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
