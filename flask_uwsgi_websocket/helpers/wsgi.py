"""The types of WSGI, which type checkers know, and Python from 3.11 on."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse as StartResponse
    from _typeshed.wsgi import WSGIApplication as WSGIApplication
    from _typeshed.wsgi import WSGIEnvironment as WSGIEnvironment
else:
    StartResponse = WSGIApplication = WSGIEnvironment = Any
