"""Reports connections to OpenTelemetry, once the app has set its SDK up; imports nothing before."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from ...engines.base import Engine
from ...helpers.wsgi import WSGIEnvironment
from ...metrics.observers import End, Observer, Refusal
from ...servers import uwsgi

if TYPE_CHECKING:
    from .tracing import Tracing


class Telemetry(Observer):
    """Makes spans and metrics of the connections of one extension.

    Whoever uses OpenTelemetry has imported it. Where nobody has, this costs a look for the module
    with each handshake, and no memory.

    :param websocket: the extension.
    """

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket
        self._tracing: Tracing | None = None
        self._is_measured = False
        # Then locks of its export may be real ones in spite of gevent's patch: two greenlets that
        # ask for one, ours and its own, would wait for ever.
        self._is_sdk_early = "opentelemetry.sdk.metrics" in sys.modules

    def client_class(self, client_class: type[Any], config: Any) -> type[Any]:
        if not config["UWSGI_WEBSOCKET_OTEL_MESSAGES"] or not self._look(config):
            return client_class
        from .messages import traced_class

        return traced_class(client_class)

    def handling(self, client: Any, route: str) -> None:
        config = client._app.config
        tracing = self._look(config)
        if tracing is not None:
            tracing.begin(client, route, config["UWSGI_WEBSOCKET_OTEL_MESSAGES"])

    def closed(self, client: Any, end: End) -> None:
        if client is None:
            return
        if self._tracing is not None:
            self._tracing.end(client.environ, end)
        if self._is_measured and client._app.config["UWSGI_WEBSOCKET_OTEL"]:
            from .instruments import record_duration

            record_duration(end)

    def refused(self, environ: WSGIEnvironment, refusal: Refusal) -> None:
        if self._tracing is not None:
            self._tracing.refuse(environ, refusal)

    def begin_with_workers(self, config: Any, engine: Engine) -> None:
        """Measure in each worker of uWSGI once that serves: one without connections, too."""
        if uwsgi.running_engine() == engine.name:
            uwsgi.after_fork(lambda: engine.begin_on_loop(lambda: self.measure(config)))

    def measure(self, config: Any) -> None:
        """Have the metrics of this process include the extension's, if anything reads them."""
        if self._is_measured or not config["UWSGI_WEBSOCKET_OTEL"]:
            return
        if "opentelemetry.metrics" in sys.modules or "opentelemetry.trace" in sys.modules:
            from .flushing import flush
            from .instruments import measure

            self._is_measured = True
            measure(self._websocket)
            if uwsgi.inside():
                engine = uwsgi.engine(self._websocket.middleware.engine_name)
                may_deadlock = engine.name == "gevent" and self._is_sdk_early
                engine.call_at_end(partial(flush, for_good=may_deadlock))

    def _look(self, config: Any) -> Tracing | None:
        """Return what traces connections, if the app wants that and has an SDK that takes it."""
        if not config["UWSGI_WEBSOCKET_OTEL"]:
            return None
        self.measure(config)
        if self._tracing is None and "opentelemetry.trace" in sys.modules:
            from .tracing import is_set_up, tracing

            if is_set_up():
                self._tracing = tracing()
        return self._tracing
