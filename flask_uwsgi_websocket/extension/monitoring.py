"""What an app calls to have its WebSockets watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..monitoring.admin.mounting import AdminPages


class MonitoringMethods:
    """The methods of :class:`~.extension.WebSocket` that are for operators."""

    if TYPE_CHECKING:
        _admin_pages: AdminPages

    def admin(
        self,
        url_prefix: str = "/_ws",
        allowed: Callable[[], Any] | None = None,
        *,
        subdomain: str | None = None,
    ) -> None:
        """Mount the admin page, which shows the connections of all workers, and acts on them.

        On the extension's app; before ``init_app``, on each app to come. The app needs a
        ``secret_key``.

        :param url_prefix: where the page is.
        :param allowed: tells who may. It is called without arguments, within each request of the
            page, the handshake of its WebSocket and each action among them. It returns True, or
            a name for the log of who did what; False or None, which is answered with 403; or a
            response, such as the way to a page to log in. It may abort, and be ``async def``.
        :param subdomain: as for Flask's blueprints.
        :raises TypeError: without ``allowed``.
        :raises ValueError: for a prefix that cannot be, or that has an admin page already.
        """
        self._admin_pages.mount(url_prefix, allowed, subdomain)
