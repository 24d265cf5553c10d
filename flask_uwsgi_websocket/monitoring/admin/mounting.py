"""The admin page of an app: its blueprint, its WebSocket route, and what guards both."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    has_app_context,
    request,
    send_from_directory,
)
from werkzeug.exceptions import HTTPException

from ...clients.base import BaseClient
from ...rooms.rooms import Rooms
from ...servers import uwsgi
from . import acting, connections, history, rooms
from .actions import Actions, refusal
from .audit import log_refusal
from .permission import (
    Permission,
    check_origin,
    check_secret_key,
    has_token,
    is_for_websocket,
    make_token,
)
from .rows import ADMIN
from .updates import MAX_MESSAGE, Updates, handler

STATIC = Path(__file__).parent / "static"


class Place(NamedTuple):
    """Where a page is; but for its prefix as Flask's routes have it."""

    prefix: str
    subdomain: str | None
    host: str | None

    def __str__(self) -> str:
        return (self.host or self.subdomain or "") + self.prefix


class Mounted(NamedTuple):
    """What an app has asked for: where, who may, and what they are called."""

    place: Place
    allowed: Callable[[], Any]
    who: Callable[[], Any] | None


#: In ``app.extensions``: the admin pages of an app, by their places.
_PAGES = "uwsgi_websocket.admin"

#: Nothing from elsewhere, nothing inline, in nobody's frame.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: What each worker answers, once an admin page is mounted.
ANSWERERS = {
    connections.ASK: connections.answer,
    rooms.ASK: rooms.answer,
    acting.ASK: acting.answer,
    history.ASK: history.answer,
}


class AdminPages:
    """The admin pages of one extension.

    :param websocket: the extension.
    """

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket
        self._for_apps_to_come: list[Mounted] = []
        #: The routes of their WebSockets.
        self._sockets: dict[Place, Blueprint] = {}
        self._handler = handler(self._serve, websocket._asynchronous)

    def mount(
        self, url_prefix: str, allowed: Any, who: Any, subdomain: str | None, host: str | None
    ) -> None:
        """Mount a page on the extension's app; where there is none yet, on those to come."""
        check_prefix(url_prefix)
        check_functions(allowed, who)
        check_host(host, subdomain)
        place = Place(url_prefix.rstrip("/"), subdomain, host and host.lower())
        mounted = Mounted(place, allowed, who)
        if self._websocket.app is None:
            self._for_apps_to_come.append(mounted)
        else:
            self._mount_on(self._websocket.app, mounted)

    def add(self, app: Flask) -> None:
        """Mount on an app what was to be mounted on each."""
        for mounted in self._for_apps_to_come:
            self._mount_on(app, mounted)

    def _mount_on(self, app: Flask, mounted: Mounted) -> None:
        place = mounted.place
        pages: dict[Place, AdminPage] = app.extensions.setdefault(_PAGES, {})
        if place in pages:
            raise ValueError(
                f"the admin page is at {place} already: mount it once for each app, after "
                "init_app(app), or once for all before it"
            )
        check_matching(app, place)
        name = f"websocket_admin_{len(pages) + 1}" if pages else "websocket_admin"
        pages[place] = page = AdminPage(self._websocket, app, name, mounted)
        where: Any = {"url_prefix": place.prefix, "subdomain": place.subdomain}
        app.register_blueprint(page.blueprint, **where)
        self._websocket._rooms.answerers.update(ANSWERERS)
        if uwsgi.inside():
            name = self._websocket.middleware.engine_name
            history.begin_with_workers(
                lambda: app.config["UWSGI_WEBSOCKET_PREFIX"] or "",
                lambda: uwsgi.engine(name).process,
            )
        if place not in self._sockets:
            self._sockets[place] = self._make_socket(place)
        self._websocket.register_blueprint(self._sockets[place], **where)

    def _make_socket(self, place: Place) -> Blueprint:
        """Make the route of a WebSocket, which all apps of the extension have."""
        name = f"websocket_admin_socket:{place}".replace(".", "%2e")
        blueprint = Blueprint(name, __name__)
        blueprint.before_request(lambda: _page_at(place).guard())
        blueprint.after_request(_harden)
        # Any origin would do but for the guard, which knows better; it has run when this does.
        options: Any = {
            "origins": "*",
            "lazy": False,
            "max_message_size": 4 * MAX_MESSAGE,
            "max_rate": False,
            "max_connections": False,
            **_of_host(place),
        }
        blueprint.add_url_rule("/updates", "updates", self._handler, **options)
        return blueprint

    def _serve(self, ws: Any) -> Updates:
        if not isinstance(ws, BaseClient):
            raise RuntimeError("the admin page needs clients of ours, not UWSGIWebSocketClient")
        app: Any = ws._app
        who, place = ws.environ[ADMIN]
        page: AdminPage = app.extensions[_PAGES][place]
        hello = {
            "who": who,
            "token": make_token(app, who),
            "worker": page.rooms.live().engine.process.worker_id(),
            "host": socket.gethostname(),
            "time": time.time(),
        }
        return Updates(ws, page.rooms, hello, partial(self._stats, app))

    def _stats(self, app: Flask) -> dict[str, Any]:
        # Where handlers have no context, it is the latest app's that would be told.
        with nullcontext() if has_app_context() else app.app_context():
            stats: dict[str, Any] = self._websocket.stats()
        return stats


def _page_at(place: Place) -> AdminPage:
    """Return the page of the current app; NotFound where another app of the extension has it."""
    page: AdminPage | None = current_app.extensions.get(_PAGES, {}).get(place)
    return page or abort(404)


def check_prefix(url_prefix: Any) -> None:
    """Check where a page is to be mounted; ValueError says what is possible."""
    is_path = isinstance(url_prefix, str) and url_prefix.startswith("/") and url_prefix.strip("/")
    if not is_path or "<" in url_prefix:
        raise ValueError(
            f"url_prefix is {url_prefix!r}: it must be a path such as '/_ws', without variables"
        )


def check_functions(allowed: Any, who: Any) -> None:
    """Check that there is a function that tells who may use a page; else TypeError."""
    if not callable(allowed):
        raise TypeError(
            "admin() needs allowed=, a function that tells, within each request, whether its "
            "sender may see and close all connections, such as allowed=lambda: "
            "current_user.is_authenticated and current_user.is_admin"
        )
    if who is not None and not callable(who):
        raise TypeError(f"who is {who!r}: it is a function, such as lambda: current_user.name")


def check_host(host: Any, subdomain: str | None) -> None:
    """Check the host that a page is to be mounted on; ValueError says what is possible."""
    if host is not None and (not isinstance(host, str) or not host or set("</") & set(host)):
        raise ValueError(
            f"host is {host!r}: it must be a name such as 'ops.example.com', with the port if that "
            "is not the usual one, and without variables"
        )
    if host and subdomain:
        raise ValueError("a page is mounted on a host, or on a subdomain, not on both")


def check_matching(app: Flask, place: Place) -> None:
    """Check that an app finds a page where it is mounted; ValueError says what is missing."""
    if app.url_map.host_matching and place.host is None:
        raise ValueError(
            "this app has host_matching, so that nothing is found without a host: say which, as in "
            "admin(..., host='ops.example.com')"
        )
    if place.host is not None and not app.url_map.host_matching:
        raise ValueError(
            f"host={place.host!r} needs an app with host_matching: without it the page would be on "
            "all hosts"
        )


def _of_host(place: Place) -> dict[str, Any]:
    """Return the option of a route that names its host."""
    return {} if place.host is None else {"host": place.host}


class AdminPage:
    """One page on one app.

    :param name: that of its blueprint.
    """

    def __init__(self, websocket: Any, app: Flask, name: str, mounted: Mounted) -> None:
        self._place = mounted.place
        self._app = app
        self.rooms: Rooms = websocket._rooms.of(app)
        identify = partial(websocket._rooms.user_of_request, app)
        self._permission = Permission(app, mounted.allowed, mounted.who, identify)
        self.blueprint = Blueprint(name, __name__)
        self._add_rules(Actions(self.rooms))

    def _add_rules(self, actions: Actions) -> None:
        blueprint = self.blueprint
        blueprint.url_value_preprocessor(self._spare)
        blueprint.before_request(self.guard)
        blueprint.after_request(_harden)
        # All that the page refers to is below the slash.
        show = partial(send_from_directory, STATIC, "page.html")
        host = _of_host(self._place)
        blueprint.add_url_rule("/", "page", show, strict_slashes=True, **host)
        blueprint.add_url_rule("/static/<path:filename>", "static", _static, **host)
        for name, view in actions.views().items():
            blueprint.add_url_rule(f"/{name}", name, view, methods=["POST"], **host)

    def _spare(self, endpoint: str | None, values: dict[str, Any] | None) -> None:
        """Have Flask-WTF, whose turn is next, spare these requests: they have a token of ours."""
        csrf: Any = self._app.extensions.get("csrf")
        if type(csrf).__module__.partition(".")[0] == "flask_wtf":
            csrf.exempt(self.blueprint)

    def guard(self) -> Any:
        """Let nobody pass who may not; also to the WebSocket, before its handshake is answered."""
        check_secret_key(self._app)
        try:
            if request.method == "POST" or is_for_websocket():
                check_origin()
            who = self._permission.ask()
        except HTTPException as error:
            reason = error.description or "the app says so"
            log_refusal(reason)
            if request.method == "POST":
                return refusal(error.code or 403, reason)
            raise
        if not isinstance(who, str):
            return who
        g.websocket_admin = who
        request.environ[ADMIN] = who, self._place
        if request.method == "POST" and not has_token(self._app, who):
            log_refusal("its token is missing, too old, or another admin's")
            return refusal(403, "this page is too old: reload it", reload=True)
        return None


def _static(filename: str) -> Response:
    return send_from_directory(STATIC, filename)


def _harden(response: Response) -> Response:
    if response.status_code != 101:
        for name, value in _HEADERS.items():
            response.headers[name] = value
    return response
