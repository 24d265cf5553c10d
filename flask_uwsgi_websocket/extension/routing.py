"""Routes of WebSocket handlers: Flask's own routing, on a map of their own."""

from __future__ import annotations

import inspect
from _thread import RLock
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Literal
from weakref import WeakKeyDictionary

from flask import Blueprint, Flask, Request
from flask.globals import request_ctx
from werkzeug.routing import Map, MapAdapter, RequestRedirect, Rule, RuleFactory

from ..codec import DeflateSettings
from ..codec.handshake import is_token
from ..helpers.checks import BYTES, CONNECTIONS_OR_FALSE, RATE_OR_FALSE, SWITCH, nearest
from ..helpers.functions import innermost
from ..rooms.envelope import SUBPROTOCOL
from .config import COMPRESSION, check_origins

#: Options of a rule that are Werkzeug's own.
_RULE_OPTIONS = inspect.signature(Rule.__init__).parameters.keys() - {"self", "string"}

#: The check of each option that may be None.
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "origins": check_origins,
    "compression": COMPRESSION.check,
    "max_message_size": BYTES.check,
    "max_rate": RATE_OR_FALSE.check,
    "max_connections": CONNECTIONS_OR_FALSE.check,
    "lazy": SWITCH.check,
    "require_subprotocol": SWITCH.check,
    "resume": SWITCH.check,
}

#: Options of a rule that are ours.
_OWN = ("subprotocols", *_CHECKS)


class WebSocketRule(Rule):
    """A URL rule that only the upgrade requests of WebSockets match.

    :param subprotocols: those that the handler speaks, in its order of preference.
    :param require_subprotocol: whether a client that offers none of ``subprotocols`` is refused
        with 400; otherwise it is served without a subprotocol.
    :param origins: overrides ``UWSGI_WEBSOCKET_ALLOWED_ORIGINS`` for this route.
    :param compression: overrides ``UWSGI_WEBSOCKET_COMPRESSION``.
    :param max_message_size: overrides ``UWSGI_WEBSOCKET_MAX_MESSAGE_SIZE``, in bytes.
    :param max_rate: overrides ``UWSGI_WEBSOCKET_MAX_RATE``: how many messages a client may send at
        a time, and within how many seconds, as in ``(20, 1)``. False: any.
    :param max_connections: how many connections a user, or an address, may have to this route;
        those to routes without one are counted together, by ``UWSGI_WEBSOCKET_MAX_CONNECTIONS``.
        False: any number.
    :param lazy: whether the handshake waits, up to a second, for the handler's first use of its
        client, so that a decorator, or the handler, may refuse with a response or ``abort()``
        until then (and later with close code 1008). None: if the handler has decorators (of those
        that keep ``__wrapped__``, as functools.wraps does).
    :param resume: whether clients that offer the subprotocol ``flask-uwsgi-rooms.v1``, as rooms.js
        does, get envelopes, by which they go on where they were after a reconnect; see
        :mod:`~.rooms.envelope`. Others are served as without.
    :raises TypeError: for an unknown option, and for subprotocols that are not a list.
    :raises ValueError: for another value that an option cannot have.
    """

    def __init__(
        self,
        string: str,
        *,
        subprotocols: Sequence[str] = (),
        require_subprotocol: bool = False,
        origins: str | Collection[str] | None = None,
        compression: bool | DeflateSettings | None = None,
        max_message_size: int | None = None,
        max_rate: Sequence[float] | Literal[False] | None = None,
        max_connections: int | None = None,
        lazy: bool | None = None,
        resume: bool = False,
        **options: Any,
    ) -> None:
        for name in options.keys() - _RULE_OPTIONS:
            hint = nearest(name, [*_RULE_OPTIONS, *_OWN])
            raise TypeError(f"route {string} has no option {name}{hint}")
        self.subprotocols = subprotocols
        self.require_subprotocol = require_subprotocol
        self.origins = origins
        self.compression = compression
        self.max_message_size = max_message_size
        self.max_rate = max_rate
        self.max_connections = max_connections
        self.lazy = lazy
        self.resume = resume
        self._check_options(string)
        # Werkzeug allows no other methods on a WebSocket rule; 4.1 of RFC 6455 demands GET.
        super().__init__(string, **{**options, "methods": {"GET"}, "websocket": True})

    @cached_property
    def pattern(self) -> str:
        """What it is known by where connections are counted: host or subdomain, and path.

        To be asked for once it is bound, which is when its subdomain is certain.
        """
        return (self.host or self.subdomain or "") + self.rule

    def _check_options(self, string: str) -> None:
        _check_subprotocols(f"subprotocols of route {string}", self.subprotocols)
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                check(f"{name} of route {string}", value)
        if self.require_subprotocol and not self.subprotocols:
            raise ValueError(
                f"require_subprotocol of route {string} needs subprotocols=[...] to choose among"
            )

    def get_empty_kwargs(self) -> dict[str, Any]:
        return {**super().get_empty_kwargs(), **{name: getattr(self, name) for name in _OWN}}


def _check_subprotocols(name: str, subprotocols: Any) -> None:
    if not isinstance(subprotocols, (list, tuple)):
        raise TypeError(f"{name} is {subprotocols!r}: it is a list, in the order of preference")
    for subprotocol in subprotocols:
        if not (isinstance(subprotocol, str) and is_token(subprotocol)):
            raise ValueError(
                f"{name} has {subprotocol!r} in it: a subprotocol is a name without blanks, commas "
                "and the like (RFC 6455 4.1: a token)"
            )
        if subprotocol == SUBPROTOCOL:
            raise ValueError(f"{name} has {subprotocol!r} in it: that is spoken by resume=True")


class LateMap(Map):
    """A map that binds its rules when they are first needed.

    The converters of a rule may be registered after it, and on an app that is not there yet.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._waiting: list[RuleFactory] = []
        # May be acquired again: figures are told at the end of a process, too, where a handler of
        # signals may come in between.
        self._binding = RLock()
        super().__init__(*args, **kwargs)

    def add(self, rulefactory: RuleFactory) -> None:
        self._waiting.append(rulefactory)

    @property
    def is_bound(self) -> bool:
        """Whether all rules are bound."""
        return not self._waiting

    def bind_rules(self, converters: dict[str, Any]) -> None:
        """Bind the rules that were added since; LookupError for an unknown converter."""
        if self.is_bound:  # as with all handshakes but the first
            return
        with self._binding:
            self.converters.update(converters)
            while self._waiting:
                super().add(self._waiting[0])
                del self._waiting[0]


class Router(Flask):
    """A Flask app that is never served: it collects the routes and blueprints of WebSockets.

    So that these are everything they are on an app, whichever version of Flask it is: endpoints,
    defaults, nested blueprints, and the functions that blueprints bring along.
    """

    url_rule_class = WebSocketRule  # type: ignore[assignment]
    url_map_class = LateMap
    url_map: LateMap

    #: What blueprints bring along, by the name of the attribute: lists by blueprint.
    _FUNCTIONS = (
        "before_request_funcs",
        "after_request_funcs",
        "teardown_request_funcs",
        "url_value_preprocessors",
        "url_default_functions",
        "template_context_processors",
    )

    def __init__(
        self, import_name: str, check_handler: Callable[[Callable[..., Any]], None]
    ) -> None:
        super().__init__(import_name, static_folder=None)
        self._check_handler = check_handler
        #: The apps that have these routes, oldest first, with handlers of theirs that another one
        #: has replaced.
        self._apps: WeakKeyDictionary[Flask, dict[str, Callable[..., Any]]] = WeakKeyDictionary()
        #: What was registered: rules by endpoint, blueprints by name, each with its options.
        self._rules: defaultdict[str | None, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        self._blueprints: dict[str, tuple[Blueprint, dict[str, Any]]] = {}
        for name in self._FUNCTIONS:
            getattr(self, name).clear()

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        if view_func is not None:
            self._check_handler(view_func)
            if endpoint is None and not hasattr(view_func, "__name__"):
                raise TypeError(f"{view_func!r} has no name for an endpoint: add endpoint='...'")
        name = endpoint or getattr(view_func, "__name__", None)
        if self._registers_again(name, (rule, options), view_func):
            return
        super().add_url_rule(rule, endpoint, view_func, False, **options)
        self._rules[name].append((rule, options))

    def _registers_again(
        self,
        endpoint: str | None,
        rule: tuple[str, dict[str, Any]],
        handler: Callable[..., Any] | None,
    ) -> bool:
        """Return whether an earlier app has this already: a factory registers anew for each app.

        A function that the factory defines is another object each time: it is the handler of the
        newest app, and earlier ones keep theirs.
        """
        known = self.view_functions.get(endpoint or "")
        if known is None or handler is None or rule not in self._rules[endpoint]:
            return False
        if known == handler:
            return True
        code = getattr(innermost(handler), "__code__", None)
        if code is None or code is not getattr(innermost(known), "__code__", None):
            return False  # Flask's error: another function has this endpoint
        for replaced in list(self._apps.values())[:-1]:
            replaced.setdefault(endpoint or "", known)
        self.view_functions[endpoint or ""] = handler
        return True

    def patterns(self) -> list[str]:
        """Return those of all routes that are bound to apps by now; from any thread."""
        if not self.url_map.is_bound:  # else nothing that a request goes by changes
            with suppress(LookupError):  # of an unknown converter, as the first request will tell
                for app in tuple(self._apps):
                    self._bind(app)
        rules: Iterable[Any] = self.url_map.iter_rules()
        return [rule.pattern for rule in rules]

    def handler(self, app: Flask, endpoint: str) -> Callable[..., Any]:
        """Return an app's handler of an endpoint."""
        return self._apps.get(app, {}).get(endpoint) or self.view_functions[endpoint]

    def register_blueprint(  # type: ignore[override]  # Flask's own type is of 3.0 and later
        self, blueprint: Blueprint, **options: Any
    ) -> None:
        """Register a blueprint as Flask does; once more, for another app, is no error."""
        name = options.get("name", blueprint.name)
        if self._blueprints.get(name) != (blueprint, options):
            super().register_blueprint(blueprint, **options)
            self._blueprints[name] = blueprint, options
        for app in self._apps:
            self._share_with(app)

    def serve(self, app: Flask) -> None:
        """Have an app serve these routes, those to come included."""
        self._apps[app] = {}
        self._share_with(app)

    def _share_with(self, app: Flask) -> None:
        """Add to an app what blueprints brought along, so that it handles their requests alike."""
        for name in self._FUNCTIONS:
            theirs = getattr(app, name)
            for blueprint, functions in getattr(self, name).items():
                known = theirs[blueprint]
                known.extend(function for function in functions if function not in known)
        for blueprint, by_code in self.error_handler_spec.items():
            for code, handlers in by_code.items():
                app.error_handler_spec[blueprint][code].update(handlers)
        for name, blueprint in self.blueprints.items():
            app.blueprints.setdefault(name, blueprint)

    def match(self, app: Flask, request: Request) -> tuple[WebSocketRule, dict[str, Any]]:
        """Find the rule for an upgrade request, and the variables of its URL.

        The method does not matter here: the handshake refuses all but GET.

        :raises HTTPException: when no rule matches, or it must be redirected.
        """
        # What the app's own routes were matched by: that takes as long to be made as all the rest.
        # None where the request is one that Flask refuses, which it then does here as well.
        theirs = request_ctx.url_adapter or app.create_url_adapter(request)
        adapter = self._adapter(app, theirs)
        try:
            rule, values = adapter.match(method="GET", return_rule=True, websocket=True)
        except RequestRedirect as redirect:
            # What is redirected is still an HTTP request.
            if redirect.new_url.startswith(("ws:", "wss:")):
                redirect.new_url = "http" + redirect.new_url[2:]
            raise
        assert isinstance(rule, WebSocketRule)
        return rule, dict(values)

    def build(self, app: Flask, request: Request | None, endpoint: str, values: Any) -> str:
        """Return the ws:// or wss:// URL of an endpoint."""
        adapter = self._adapter(app, app.create_url_adapter(request))
        return adapter.build(endpoint, values, force_external=True)

    def _bind(self, app: Flask) -> None:
        """Bind the rules as the app binds its own."""
        self.url_map.host_matching = app.url_map.host_matching  # before the rules
        self.url_map.bind_rules(app.url_map.converters)

    def _adapter(self, app: Flask, theirs: MapAdapter | None) -> MapAdapter:
        """Bind our map as the app has bound its own."""
        self._bind(app)
        if theirs is None:
            raise RuntimeError("outside of a request, building URLs needs the SERVER_NAME setting")
        # Map.bind() would make the same of it, after having encoded the server's name again.
        return MapAdapter(
            self.url_map,
            theirs.server_name,
            theirs.script_name,
            theirs.subdomain,
            theirs.url_scheme,
            theirs.path_info,
            "GET",
            theirs.query_args,
        )
