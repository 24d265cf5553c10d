"""What the code blocks of the pages are checked by, language by language.

A configuration is read by the program that it is for. What a page leaves to its reader is put
around it first.
"""

from __future__ import annotations

import configparser
import functools
import html.parser
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest
import yaml

from tests.server import PATIENCE, uwsgi_binary

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

Check = Callable[[str, Path], None]


def read_by(*command: str | Path) -> None:
    """Run a program that reads a configuration, and show what it says if it does not like it."""
    program = str(command[0])
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    if not (found := shutil.which(program, path=path)):
        pytest.fail(f"no {program} here: apt-get install {program}", pytrace=False)
    done = subprocess.run(
        [found, *map(str, command[1:])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def nginx(text: str, folder: Path) -> None:
    for name in os.listdir("/etc/nginx"):
        if not (folder / name).exists() and name != "nginx.conf":
            (folder / name).symlink_to(f"/etc/nginx/{name}")
    text = re.sub(r"(ssl_certificate(?:_key)?) [^;]+;", "", text).replace(" ssl;", ";")
    if not re.search(r"^server\b", text, re.MULTILINE):
        text = f"server {{ {text} }}"
    if not re.search(r"^http\b", text, re.MULTILINE):
        text = f"http {{ {text} }}"
    if not re.search(r"^events\b", text, re.MULTILINE):
        text += "events {}"
    # It opens the ports that it listens on, which others may have.
    number = itertools.count()
    text = re.sub(r"\blisten [^;]+;", lambda _: f"listen unix:{folder}/{next(number)};", text)
    (folder / "nginx.conf").write_text(f"pid {folder}/pid; error_log stderr;\n{text}")
    read_by("nginx", "-t", "-q", "-c", folder / "nginx.conf", "-p", folder)


def haproxy(text: str, folder: Path) -> None:
    text = re.sub(r" ssl crt \S+", "", text)
    (folder / "haproxy.cfg").write_text(text)
    read_by("haproxy", "-c", "-q", "-f", folder / "haproxy.cfg")


def apacheconf(text: str, folder: Path) -> None:
    modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "headers"]
    loads = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules
    )
    head = f"ServerRoot {folder}\nServerName example.com\nListen 127.0.0.1:8081\nErrorLog stderr\n"
    (folder / "apache2.conf").write_text(f"{head}PidFile {folder}/pid\n{loads}\n{text}")
    read_by("apache2", "-t", "-f", folder / "apache2.conf")


def caddyfile(text: str, folder: Path) -> None:
    (folder / "Caddyfile").write_text(text)
    read_by("caddy", "adapt", "--adapter", "caddyfile", "--config", folder / "Caddyfile")


def vcl(text: str, folder: Path) -> None:
    head = 'vcl 4.1;\nbackend default { .host = "127.0.0.1"; .port = "8080"; }\n'
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # what compiles it is another user
        Path(place, "site.vcl").write_text(head + text)
        read_by("varnishd", "-C", "-n", f"{place}/varnish", "-f", f"{place}/site.vcl")


def lighttpd(text: str, folder: Path) -> None:
    (folder / "lighttpd.conf").write_text(f'server.document-root = "{folder}"\n{text}')
    read_by("lighttpd", "-tt", "-f", folder / "lighttpd.conf")


@functools.cache
def uwsgi_options() -> set[str]:
    """The names of all options that the uWSGI of this environment has."""
    told = subprocess.run(
        [uwsgi_binary(), "--help"], stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE
    )
    return set(re.findall(r"--([\w-]+)", told.stdout))


def ini(text: str, folder: Path) -> None:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), allow_no_value=True)
    parser.read_string(text)
    assert parser.sections(), "no [section]"
    if "uwsgi" in parser:
        assert set(parser["uwsgi"]) - uwsgi_options() == set()


def systemd(text: str, folder: Path) -> None:
    kind = "socket" if "[Socket]" in text else "service"
    if kind == "service":
        # The programs that it starts are on the reader's machine.
        text = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", text, flags=re.MULTILINE)
        text = re.sub(r"^(User|Group|WorkingDirectory)=.*\n?", "", text, flags=re.MULTILINE)
    if kind == "service" and "ExecStart=" not in text:
        text += "\n[Service]\nExecStart=/bin/true\n"
    service = "[Service]\nExecStart=/bin/true\n"
    (folder / "checked.service").write_text(text if kind == "service" else service)
    if kind == "socket":
        (folder / "checked.socket").write_text(text)
    read_by("systemd-analyze", "verify", "--man=no", folder / f"checked.{kind}")


class Balance(html.parser.HTMLParser):
    """Elements that begin and do not end, or end without having begun, and the scripts."""

    EMPTY = frozenset({"meta", "link", "br", "img", "input", "hr", "source", "use", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"{self.open} do not end"

    def handle_starttag(self, tag: str, attributes: object) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open, f"</{tag}> ends what has not begun"
            assert self.open.pop() == tag, f"</{tag}> ends another element"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)


def javascript(text: str, folder: Path) -> None:
    """A module, which Node reads and does not run."""
    (folder / "block.mjs").write_text(text)
    read_by("node", "--check", folder / "block.mjs")


def page(text: str, folder: Path) -> None:
    for script in Balance(text).scripts:
        javascript(script, folder)


def jinja(text: str, folder: Path) -> None:
    environment = jinja2.Environment()
    environment.filters["tojson"] = lambda value: '"some value"'
    page(environment.from_string(text).render(url_for=lambda *_, **__: "/some/url"), folder)


#: Without those of `console` and `python`.
CHECKS: dict[str, Check] = {
    "apacheconf": apacheconf,
    "caddyfile": caddyfile,
    "haproxy": haproxy,
    "html": page,
    "html+jinja": jinja,
    "ini": ini,
    "javascript": javascript,
    "json": lambda text, folder: json.loads(text) and None,
    "lighttpd": lighttpd,
    "nginx": nginx,
    "systemd": systemd,
    "text": lambda text, folder: None,
    "toml": lambda text, folder: tomllib.loads(text) and None,
    "vcl": vcl,
    "yaml": lambda text, folder: list(yaml.safe_load_all(text)) and None,
}
