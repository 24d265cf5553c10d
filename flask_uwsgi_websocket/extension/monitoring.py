"""What an app calls to have its WebSockets watched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask import Flask

from ..monitoring.prometheus import collector_of
from ..monitoring.shared_stats import shared_stats_of
from ..monitoring.stats import stats_of, stats_of_process
from ..servers import uwsgi
from . import config
from .dispatch import dispatch_of

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from ..monitoring.admin.mounting import AdminPages
    from ..monitoring.exposition import StatsCollector


class MonitoringMethods:
    """The methods of :class:`~.extension.WebSocket` that are for operators."""

    if TYPE_CHECKING:
        middleware: Any
        _admin_pages: AdminPages

        def _served_app(self) -> Flask: ...

    def stats(self) -> dict[str, Any]:
        """Return what was counted: plain data for JSON, of all workers of this uWSGI.

        These are the sums of all workers, and each worker by itself in ``"workers"``: those that
        are live, blocked, ended, or retired, which ``--cheaper`` or a reload has ended for good.
        The figures of others are up to two seconds old, and those of one that is blocked as old as
        its ``"age"`` says; then ``"complete"`` is False. Counters never fall while this uWSGI runs.
        Elsewhere than on uWSGI it is about this process alone.

        Waits for nobody, but reads a file for each worker. Extensions of one app, and apps with one
        ``UWSGI_WEBSOCKET_PREFIX``, are counted together.
        """
        app = self._served_app()
        prefix = prefix_of(app)
        name = self.middleware.engine_name
        if uwsgi.inside():
            return stats_of(shared_stats_of(prefix, uwsgi.engine(name).process))
        return stats_of_process(dispatch_of(app).metrics(), name, prefix)

    @cached_property
    def metrics_view(self) -> Callable[[], Response]:
        """A view for ``app.add_url_rule()``, which answers Prometheus for all workers.

        In Prometheus' text format or that of OpenMetrics, as the request asks for. The app has to
        say who may see it.

        :raises ModuleNotFoundError: without prometheus-client; says how to install it.
        """
        return self.prometheus_collector().view()

    def prometheus_collector(self) -> StatsCollector:
        """Make a collector of the same metrics, for a registry of prometheus-client's.

        :raises ModuleNotFoundError: without prometheus-client; says how to install it.
        """
        return collector_of(self.stats)

    def admin(
        self,
        url_prefix: str = "/_ws",
        allowed: Callable[[], Any] | None = None,
        *,
        who: Callable[[], Any] | None = None,
        subdomain: str | None = None,
        host: str | None = None,
    ) -> None:
        """Mount the admin page, which shows the connections of all workers, and acts on them.

        On the extension's app; before ``init_app``, on each app to come. The app needs a
        ``secret_key``.

        :param url_prefix: where the page is.
        :param allowed: says whether the sender of a request may use the page. It is called without
            arguments, within each request of the page, the handshake of its WebSocket and each
            action among them. It returns True; False or None, which is answered with 403; or a
            response, such as the way to a page to log in. It may abort, and be ``async def``.
        :param who: returns their name for the log of who did what; called as ``allowed``. Without
            one, or where it returns None, that is the name of ``ws.user``, otherwise the address.
        :param subdomain: as for Flask's blueprints.
        :param host: for apps with ``host_matching``, as for Flask's routes.
        :raises TypeError: without ``allowed``.
        :raises ValueError: for a prefix or host that cannot be, or that has an admin page already.
        """
        self._admin_pages.mount(url_prefix, allowed, who, subdomain, host)


def prefix_of(app: Flask) -> str:
    """Return what names the app where others find it."""
    return config.read(app.config, "PREFIX") or ""
