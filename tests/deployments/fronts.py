"""What a test server may have in front, as the blocks of docs/fronts.rst configure it.

A test has ports, folders and timeouts of its own: they take the place of what the page has there.
What the page does not have any more is an error, so that page and tests keep together.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from flask_uwsgi_websocket.inspection.socket_rules import ROUTER_BUFFER
from tests.pages import Page

documented = Page("fronts").code


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate, key


def program(name: str) -> str:
    """Where a program is, also if the shell of who runs the tests does not look there."""
    places = ":".join([sysconfig.get_path("scripts"), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=places) or shutil.which(name)
    assert found, f"no {name} here: bash tests/run.sh installs it"
    return found


@dataclass(frozen=True)
class Place:
    """Where a front runs.

    :param port: what clients connect to.
    :param spare: a free port, for what the page configures and this test does not use.
    :param inner: where the workers listen: an address, or the path of a UNIX socket.
    :param timeout: seconds of silence that the front endures.
    """

    folder: Path
    port: int
    spare: int
    inner: str
    timeout: int

    @property
    def public(self) -> str:
        return f"127.0.0.1:{self.port}"

    @cached_property
    def pair(self) -> tuple[Path, Path]:
        return make_certificate(self.folder)

    def ports(self, tls: bool) -> tuple[str, str]:
        """The addresses for HTTP and for HTTPS, one of which clients connect to."""
        spare = f"127.0.0.1:{self.spare}"
        return (spare, self.public) if tls else (self.public, spare)

    def write(self, name: str, text: str, words: Mapping[str, str]) -> str:
        """Write a file of configuration, with other words for those that it must have."""
        for old, new in words.items():
            assert old in text, f"docs/fronts.rst has no {old!r} in\n{text}"
            text = text.replace(old, new)
        path = self.folder / name
        path.write_text(text)
        return str(path)


Command = Callable[[Place], list[str]]


@dataclass(frozen=True)
class Front:
    """What a request passes on its way to a worker.

    :param workers: uWSGI's options.
    :param command: starts what stands before uWSGI, if anything does.
    :param tls: whether clients speak TLS to it.
    :param unix: whether the workers listen on a UNIX socket.
    :param forwards: whether it tells of the client in X-Forwarded- headers.
    """

    workers: Command
    command: Command | None = None
    tls: bool = False
    unix: bool = False
    forwards: bool = False


# uWSGI alone


def http_socket(place: Place) -> list[str]:
    return ["--http-socket", place.public]


def router(place: Place, *, websockets: bool = True, tls: bool = False) -> list[str]:
    public = ["--http", place.public]
    if tls:
        public = ["--https", ",".join([place.public, *map(str, place.pair)])]
    carries = ["--http-websockets", "--http-buffer-size", str(ROUTER_BUFFER)]
    return [*public, *(carries * websockets), "--http-timeout", str(place.timeout)]


# Workers behind a proxy


def http(place: Place) -> list[str]:
    return ["--http-socket", place.inner]


def uwsgi(place: Place) -> list[str]:
    # A front's own user may have no right to what uWSGI's made.
    return ["--socket", place.inner, "--chmod-socket=666"]


def fastrouter(place: Place) -> list[str]:
    workers = str(place.folder / "workers.sock")
    return ["--fastrouter", place.inner, "--fastrouter-to", workers, "--socket", workers]


# Proxies

NGINX = """
daemon off;
user {user};
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path nginx-body;
    proxy_temp_path nginx-proxy;
    fastcgi_temp_path nginx-fastcgi;
    uwsgi_temp_path nginx-uwsgi;
    scgi_temp_path nginx-scgi;
    include site.conf;
}}
"""


def nginx(
    place: Place, block: str, tls: bool = False, words: Mapping[str, str] | None = None
) -> list[str]:
    plain, secure = place.ports(tls)
    certificate, key = map(str, place.pair)
    site = {
        "listen 80": f"listen {plain}",
        "listen 443": f"listen {secure}",
        "/etc/ssl/site.pem": certificate,
        "/etc/ssl/site.key": key,
        "120s": f"{place.timeout}s",
        **(words or {}),
    }
    if block == "uwsgi_pass":
        # Theirs is none of the usual ports.
        host = place.write("host.conf", documented("$host:8443"), {"8443": str(place.port)})
        site["include uwsgi_params;"] = Path(host).read_text()
        site["include uwsgi_params"] = "include /etc/nginx/uwsgi_params"
        inner = place.inner if ":" in place.inner else f"unix:{place.inner}"
        site["unix:/run/app/uwsgi.sock"] = inner
    else:
        site["127.0.0.1:8080"] = place.inner
    place.write("site.conf", documented(block), site)
    # Others, such as nginx's own, may not enter the folders of tests.
    main = place.write("nginx.conf", NGINX.format(user=getpass.getuser()), {})
    return [program("nginx"), "-p", str(place.folder), "-c", main, "-e", "stderr"]


def haproxy(place: Place, tls: bool = False) -> list[str]:
    plain, secure = place.ports(tls)
    pem = place.write("site.pem", "".join(part.read_text() for part in place.pair), {})
    words = {
        "bind :80": f"bind {plain}",
        "bind :443": f"bind {secure}",
        "/etc/haproxy/site.pem": pem,
        "timeout tunnel 120s": f"timeout tunnel {place.timeout}s",
        "127.0.0.1:8080": place.inner,
    }
    configuration = place.write("haproxy.cfg", documented("timeout tunnel"), words)
    return [program("haproxy"), "-W", "-db", "-f", configuration]


APACHE = """
ServerRoot {folder}
Timeout {timeout}
ServerName localhost
PidFile apache.pid
ErrorLog /dev/stderr
User www-data
Group www-data
Listen {public}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule ssl_module {modules}/mod_ssl.so
"""

APACHE_TLS = """
SSLEngine on
SSLCertificateFile {0}
SSLCertificateKeyFile {1}
"""


def apache(place: Place, tls: bool = False) -> list[str]:
    words = {
        "<VirtualHost *:80>": "<VirtualHost *:80>" + APACHE_TLS.format(*place.pair) * tls,
        "*:80": place.public,
        "127.0.0.1:8080": place.inner,
        "timeout=120": f"timeout={place.timeout}",
    }
    main = APACHE.format(
        folder=place.folder,
        public=place.public,
        timeout=place.timeout,
        modules="/usr/lib/apache2/modules",
    )
    block = documented("upgrade=websocket")
    configuration = place.write("apache.conf", main + block, words)
    return [program("apache2"), "-DFOREGROUND", "-f", configuration]


def caddy(place: Place, tls: bool = False) -> list[str]:
    words = {"example.com": f"http://{place.public}", "127.0.0.1:8080": place.inner}
    if tls:
        certificate, key = place.pair
        words["example.com {"] = f"https://{place.public} {{\n    tls {certificate} {key}"
        del words["example.com"]
    options = f"{{\n admin unix/{place.folder}/admin\n auto_https disable_redirects\n}}\n"
    configuration = place.write("Caddyfile", options + documented("reverse_proxy"), words)
    return [program("caddy"), "run", "--config", configuration, "--adapter", "caddyfile"]


VARNISH = """
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{port}"; }}
"""


def varnish(place: Place) -> list[str]:
    head = VARNISH.format(port=place.inner.partition(":")[2])
    configuration = place.write("site.vcl", head + documented("return (pipe)"), {})
    command = [program("varnishd"), "-F", "-a", place.public, "-f", configuration]
    command += ["-n", str(place.folder / "varnish"), "-p", f"pipe_timeout={place.timeout}"]
    # Its own user may not enter the folders of tests.
    return [*command, "-j", "none"]


def lighttpd(place: Place) -> list[str]:
    words = {"8080": place.inner.partition(":")[2]}
    head = f"""server.document-root = "{place.folder}"
server.bind = "127.0.0.1"
server.port = {place.port}
server.errorlog = "/dev/stderr"
server.max-read-idle = {place.timeout}
"""
    configuration = place.write("lighttpd.conf", head + documented("mod_proxy"), words)
    return [program("lighttpd"), "-D", "-f", configuration]


def traefik(place: Place) -> list[str]:
    words = {"127.0.0.1:8080": place.inner}
    routes = place.write("app.yaml", documented("loadBalancer"), words)
    words = {":80": place.public, "/etc/traefik/app.yaml": routes}
    configuration = place.write("traefik.yaml", documented("entryPoints"), words)
    return [program("traefik"), f"--configFile={configuration}"]


NGINX_UWSGI = partial(nginx, block="uwsgi_pass")
NGINX_PROXY = partial(nginx, block="proxy_pass")
WITHOUT_HTTP11 = {"proxy_http_version 1.1": "proxy_http_version 1.0"}

FRONTS = {
    "http-socket": Front(http_socket),
    "http": Front(router),
    "https": Front(partial(router, tls=True), tls=True),
    "nginx-uwsgi": Front(uwsgi, NGINX_UWSGI),
    "nginx-unix": Front(uwsgi, NGINX_UWSGI, unix=True),
    "nginx-tls": Front(uwsgi, partial(NGINX_UWSGI, tls=True), tls=True, unix=True),
    "nginx-proxy": Front(http, NGINX_PROXY, forwards=True),
    "nginx-proxy-tls": Front(http, partial(NGINX_PROXY, tls=True), tls=True, forwards=True),
    "haproxy": Front(http, haproxy, forwards=True),
    "haproxy-tls": Front(http, partial(haproxy, tls=True), tls=True, forwards=True),
    "apache": Front(http, apache, forwards=True),
    "apache-tls": Front(http, partial(apache, tls=True), tls=True, forwards=True),
    "caddy": Front(http, caddy, forwards=True),
    "caddy-tls": Front(http, partial(caddy, tls=True), tls=True, forwards=True),
    "traefik": Front(http, traefik, forwards=True),
    "varnish": Front(http, varnish, forwards=True),
    "lighttpd": Front(http, lighttpd, forwards=True),
    # What does not work, or is for few.
    "http-without-websockets": Front(partial(router, websockets=False)),
    "nginx-fastrouter": Front(fastrouter, NGINX_UWSGI),
    "nginx-proxy-http10": Front(http, partial(NGINX_PROXY, words=WITHOUT_HTTP11), forwards=True),
}
