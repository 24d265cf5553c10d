"""The response ``101 Switching Protocols``, and handlers under decorators that are made for views.

Such decorators set header fields, for other origins or against caches, on a response that they make
of what the view has returned. A handler returns nothing, or a coroutine that has yet to run. So for
as long as the handler runs, ``make_response()`` takes either for the response 101, on which such a
decorator works as on any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any

from flask import Response
from flask.globals import request_ctx
from werkzeug.datastructures import Headers

from ..helpers.functions import innermost
from ..helpers.wsgi import StartResponse, WSGIEnvironment
from ..servers.upgrade import upgrade_of


@cache
def upgrade_class(base: type[Response]) -> type[Any]:
    """Derive, from the app's class of responses, that of the response 101."""
    return type("UpgradeResponse", (_UpgradeResponse, base), {})


class _UpgradeResponse:
    """A response ``101 Switching Protocols``, which runs the handler when it is sent."""

    headers: Headers
    status_code: int
    #: There is no content.
    default_mimetype = None
    upgrade_connection: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]
    #: Whether it was sent already, with all that Flask does to a response.
    sent = False
    #: The coroutine of a handler that has yet to run.
    _pending: Awaitable[Any] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.status_code != 101:  # an after_request function has made a refusal of it
            for name in ("Upgrade", "Connection", "Sec-WebSocket-Accept"):
                self.headers.pop(name, None)
            body: Iterable[bytes] = super().__call__(environ, start_response)  # type: ignore[misc]
            return body
        context = request_ctx._get_current_object()  # type: ignore[attr-defined]
        try:
            # Not to be kept by what it keeps.
            return self.__dict__.pop("upgrade_connection")(environ, start_response)  # type: ignore[no-any-return]
        finally:
            # Flask tells teardown functions of exceptions in views, not of those in responses.
            error = upgrade_of(environ).failure
            if error is not None:
                pop = context.pop
                context.pop = lambda exc=None: pop(error)

    def stands_for(self, result: Any) -> bool:
        """Take the result of a handler, where Flask would make a response of it."""
        value = result[0] if isinstance(result, tuple) and result else result
        if isinstance(value, Awaitable):
            self._pending = value
            return True
        return value is None or value is self

    def meant_by(self, result: Any) -> Any:
        """Return what a handler means with what its decorators have made of it.

        :return: its coroutine; None where it has returned nothing; else the result itself.
        """
        value = result[0] if isinstance(result, tuple) and result else result
        if value is None or value is self:
            value, self._pending = self._pending, None
            return value
        return value if isinstance(value, Awaitable) else result

    def end(self) -> None:
        """Give up a coroutine that will not run any more, because a decorator has refused."""
        close = getattr(self._pending, "close", None)
        if close is not None:
            close()


def is_accepted(response: Response) -> bool:
    """Return whether a response is the 101, and nobody has made a refusal of it."""
    was_sent = getattr(response, "sent", False)
    return was_sent or (isinstance(response, _UpgradeResponse) and response.status_code == 101)


def missed_response(error: BaseException, handler: Callable[..., Any]) -> bool:
    """Return whether a decorator failed because its handler returned no response.

    That is, for using None as one, and in no frame of the handler's.
    """
    about_none = (
        isinstance(error, AttributeError) and error.name is not None and error.obj is None
    ) or (isinstance(error, TypeError) and "NoneType" in str(error))
    code = getattr(innermost(handler), "__code__", None)
    if not about_none or code is None:
        return False
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            return False
        traceback = traceback.tb_next
    return True
