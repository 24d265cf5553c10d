"""Browsers whose pages come by HTTP/2, and which way their WebSockets take then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server import PATIENCE

TALK = """() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/echo`);
    socket.onerror = reject;
    socket.onopen = () => socket.send("from a page");
    socket.onmessage = event => { socket.close(); resolve(event.data); };
})"""


@pytest.mark.gevent
@pytest.mark.parametrize(
    ("front", "status"),
    [
        ("nginx-tls", 101),
        ("nginx-proxy-tls", 101),
        ("caddy-tls", 101),
        # RFC 8441 5: a WebSocket over HTTP/2 is answered with 200.
        ("haproxy-tls", 200),
    ],
)
def test_a_websocket_beside_http2(serve, browser: Any, front: str, status: int) -> None:
    server = serve("gevent", front, app="behind", config={"TEST_PROXY_FIX": True})
    context = browser.new_context(ignore_https_errors=True)
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        handshakes: list[int] = []
        devtools = context.new_cdp_session(page)
        devtools.on(
            "Network.webSocketHandshakeResponseReceived",
            lambda event: handshakes.append(event["response"]["status"]),
        )
        devtools.send("Network.enable")
        page.goto(f"{server.origin}/sight")
        [navigation] = page.evaluate(
            "performance.getEntriesByType('navigation').map(entry => entry.nextHopProtocol)"
        )
        assert navigation == "h2"
        assert page.evaluate(TALK) == "from a page"
        assert handshakes == [status]
    finally:
        context.close()
