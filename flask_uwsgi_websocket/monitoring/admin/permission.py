"""Who may use the admin page: what the app's ``allowed`` says, asked with each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, abort, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response as BaseResponse

from ...helpers.functions import is_decorated
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

    :param allowed: the app's function.
    :param identify: tells who sends a request, where ``allowed`` does not.
    """

    def __init__(
        self, app: Flask, allowed: Callable[[], Any], identify: Callable[[], str | None]
    ) -> None:
        self._app = app
        self._allowed = allowed
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
        if isinstance(answer, str):
            return self._name(answer)
        if not isinstance(answer, int):
            # Such as (text, 401), or a coroutine nobody has awaited: true, and no permission.
            raise TypeError(
                f"allowed() of the admin page returned {type(answer).__name__}: it returns True or "
                "a name (a str) for who may, False or None for who may not, or a Response"
            )
        return printable((self._identify() or request.remote_addr or "?")[:LONGEST_NAME])

    def _name(self, answer: str) -> str:
        """Return the name that an answer is.

        :raises TypeError: for a text that may as well be a page to log in, as views return them.
        """
        if is_decorated(self._allowed):
            # Whose text is it? It took the function's place, if the decorator has refused.
            raise TypeError(
                "allowed() of the admin page is decorated, and returned a text, which may be the "
                "decorator's answer to who may not: let it return True, and websocket.identify "
                "tell the name"
            )
        if answer.lstrip().startswith("<"):
            raise TypeError(
                "allowed() of the admin page returned a page, which would pass as a name: put it "
                "into flask.make_response()"
            )
        return printable(answer[:LONGEST_NAME])

    @staticmethod
    def _refusal(response: BaseResponse) -> BaseResponse:
        """Return a response that refuses; 403 where it would not be understood as a refusal."""
        if request.method == "GET" and not is_for_websocket():
            return response  # a page to log in, or the way there
        if response.status_code < 400:
            abort(403)
        return response


def is_for_websocket() -> bool:
    """Tell whether the current request asks for the admin's WebSocket."""
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
    """Tell whether the current request has a token of this admin's that is not too old."""
    try:
        named = _serializer(app).loads(request.headers.get(TOKEN_HEADER, ""), max_age=TOKEN_TIME)
    except BadData:
        return False
    return bool(named == who)


def _serializer(app: Flask) -> URLSafeTimedSerializer:
    assert app.secret_key
    return URLSafeTimedSerializer(app.secret_key, salt=_SALT)
