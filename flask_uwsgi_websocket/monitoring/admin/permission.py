"""Who may use the admin page: what the app's ``allowed`` says, asked with each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, abort, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response as BaseResponse

from ...helpers.text import printable
from ...session.origins import is_allowed as is_origin_allowed

#: Seconds for which a page may act without hearing of the server: it gets a new token with each
#: WebSocket, of which none lives as long.
TOKEN_TIME = 15 * 60
#: The header field that has the token.
TOKEN_HEADER = "X-Admin-Token"
_SALT = "flask_uwsgi_websocket.admin"
#: Characters of a name in the log.
LONGEST_NAME = 200


class Permission:
    """What one mounted admin page asks before each of its requests.

    :param allowed: the app's function that tells whether its sender may.
    :param who: the app's function that names them.
    :param identify: names them where that does not.
    """

    def __init__(
        self,
        app: Flask,
        allowed: Callable[[], Any],
        who: Callable[[], Any] | None,
        identify: Callable[[], str | None],
    ) -> None:
        self._app = app
        self._allowed = allowed
        self._who = who
        self._identify = identify

    def ask(self) -> str | BaseResponse:
        """Ask whether the current request may go on.

        :return: who sends it; or what is to be answered instead.
        :raises HTTPException: where it may not.
        :raises TypeError: where ``allowed`` returns what says neither yes nor no.
        """
        answer = self._app.ensure_sync(self._allowed)()
        if isinstance(answer, BaseResponse):
            return self._refusal(answer)
        if not answer:
            abort(403)
        if not isinstance(answer, int) or answer != 1:
            # Whatever views, and decorators in their place, answer to who may not is true, too:
            # a text, (text, 401), a coroutine that nobody has awaited.
            raise TypeError(
                f"allowed() of the admin page returned {_kind(answer)}, which may be the answer to "
                "who may not: it returns True for who may, False or None for who may not, or a "
                "Response, such as flask.redirect(); who= tells the name for the log"
            )
        return printable(self._name()[:LONGEST_NAME])

    def _name(self) -> str:
        name = None if self._who is None else self._app.ensure_sync(self._who)()
        if name is not None and not isinstance(name, (str, int)):
            raise TypeError(
                f"who() of the admin page returned {_kind(name)}: it returns a name, a str, or "
                "None where it knows none"
            )
        named = "" if name is None else str(name).strip()
        return named or self._identify() or request.remote_addr or "?"

    @staticmethod
    def _refusal(response: BaseResponse) -> BaseResponse:
        """Return a response that refuses; 403 where it would not be understood as a refusal."""
        if request.method == "GET" and not is_for_websocket():
            return response  # a page to log in, or the way there
        if response.status_code < 400:
            abort(403)
        return response


def _kind(value: object) -> str:
    """Describe what an app's function has returned, without its content."""
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def is_for_websocket() -> bool:
    """Return whether the current request asks for the admin's WebSocket."""
    return bool(request.url_rule is not None and request.url_rule.websocket)


def check_origin() -> None:
    """Refuse what no page of ours has sent: RFC 6455 10.2, and forged requests.

    Browsers always say where WebSockets and POST come from. Other origins that the app may allow
    for its own WebSockets do not count here.

    :raises HTTPException: 403.
    """
    origin = request.headers.get("Origin")
    is_ours = origin is not None and is_origin_allowed(origin, request.host, None)
    if not is_ours or (request.is_secure and not (origin or "").lower().startswith("https:")):
        abort(
            403,
            f"the admin page takes this from its own origin only, not from {printable(origin)}: "
            f"the host of this request is {printable(request.host)} (ProxyFix finds it behind a "
            "proxy)",
        )


def check_secret_key(app: Flask) -> None:
    """Check that the app can sign; RuntimeError says what it needs."""
    if not app.secret_key:
        raise RuntimeError(
            "the admin page signs what it hands out with the app's secret key: set app.secret_key, "
            "or SECRET_KEY in the configuration"
        )


def make_token(app: Flask, who: str) -> str:
    """Make what shows that a POST comes from a page that this admin has open."""
    return _serializer(app).dumps(who)


def has_token(app: Flask, who: str) -> bool:
    """Return whether the current request has a token of this admin's that is not too old."""
    try:
        named = _serializer(app).loads(request.headers.get(TOKEN_HEADER, ""), max_age=TOKEN_TIME)
    except BadData:
        return False
    return bool(named == who)


def _serializer(app: Flask) -> URLSafeTimedSerializer:
    assert app.secret_key
    return URLSafeTimedSerializer(app.secret_key, salt=_SALT)
