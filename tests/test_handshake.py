"""The opening handshake: who is upgraded, who is told what instead, and where requests go."""

from __future__ import annotations

import json

import pytest

from tests.rawclient import TEXT, close_frame, frame, opening
from tests.server import Server


def first(server: Server, path: str, **kwargs) -> str:
    """The first message from a handler."""
    with server.raw(path, **kwargs) as client:
        return client.message()


# Bad input


def test_a_wrong_version_is_told_the_right_one(server: Server) -> None:
    for version in ("12", "8", "0", "14", "13, 8", "x"):
        answer = server.refused(headers={"Sec-WebSocket-Version": version})
        assert answer.status == 426, version
        assert answer.get("Sec-WebSocket-Version") == "13"


def test_no_version_is_no_handshake(server: Server) -> None:
    answer = server.refused(headers={"Sec-WebSocket-Version": None})
    assert answer.status in (400, 426)


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "short",
        "A" * 24,
        "é" * 24,
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ==x",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZTEyMzQ1Njc4",
    ],
)
def test_a_bad_key_is_400(server: Server, key: str | None) -> None:
    assert server.refused(headers={"Sec-WebSocket-Key": key}).status == 400


def test_a_post_is_no_handshake(server: Server) -> None:
    answer = server.refused(method="POST", headers={"Content-Length": "0"})
    assert answer.status in (400, 405)


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("front", ["http-socket", "http"])
def test_a_handshake_with_a_body_is_400(shared_server, front: str, headers: dict[str, str]) -> None:
    # It would be read as frames.
    answer = shared_server("gevent", front).refused(headers=headers)
    assert answer.status == 400
    assert b"has a body" in answer.body


# Not behind uWSGI's router, which drops it.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("front", "path"),
    [
        ("http-socket", "/echo"),
        ("http-socket", "/lazy"),
        ("nginx-proxy", "/echo"),
        ("nginx-uwsgi", "/echo"),
    ],
)
def test_what_comes_with_the_request_is_not_lost(
    shared_server, engine: str, front: str, path: str
) -> None:
    # RFC 6455 4.1 has clients wait for the answer; some send at once.
    server = shared_server(engine, front, app="detaching" if path == "/lazy" else "standard")
    second = frame(TEXT, "second")
    then = frame(TEXT, "first") + second[:4]
    client = server.tcp()
    with client:
        client.handshake(path, then=then)
        assert client.message() == "first"
        client.send(second[4:] + frame(TEXT, "x" * 3000))
        assert client.message() == "second"
        assert client.message() == "x" * 3000
        assert client.leave().code == 1000
    with server.tcp() as client:
        client.handshake(path, then=frame(TEXT, "y" * 2000) + close_frame(4001))
        assert client.message() == "y" * 2000
        assert client.read_close().code == 4001


def test_a_plain_get_of_a_websocket_path_goes_to_flask(server: Server) -> None:
    assert server.get("/echo").status == 404
    assert server.get("/both").body == b"http GET"


@pytest.mark.parametrize(
    ("name", "value"),
    [("Upgrade", None), ("Upgrade", "h2c"), ("Connection", None), ("Connection", "keep-alive")],
)
def test_half_a_handshake_is_told_what_is_missing(
    server: Server, name: str, value: str | None
) -> None:
    # A proxy that was not told to pass them on drops these two fields.
    answer = server.refused("/echo", headers={name: value})
    assert answer.status == 400
    assert name.encode() in answer.body


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", None])
def test_other_upgrades_go_to_flask(server: Server, upgrade: str | None) -> None:
    headers = {"Upgrade": upgrade, "Sec-WebSocket-Key": None, "Sec-WebSocket-Version": None}
    assert server.refused("/both", headers=headers).body == b"http GET"


@pytest.mark.parametrize("offer", ["a b", "a,,b\x01", "a,b c", "ä", "chat@v2", '"quoted"', "(x)"])
def test_wrong_subprotocol_syntax_is_400(server: Server, offer: str) -> None:
    headers = {"Sec-WebSocket-Protocol": offer}
    assert server.refused("/subprotocols", headers=headers).status == 400


def test_bad_input_leaves_the_worker_alive(server: Server) -> None:
    pid = server.worker_pid
    for rubbish in (b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x00\xa5", b"GET / HTTP/1.1\r\n"):
        with server.tcp() as client:
            client.send(rubbish)
    assert first(server, "/both") == "websocket"
    assert server.worker_pid == pid
    # Of Flask's, which gets requests without a method from uWSGI.
    server.allow_log("Traceback")


def test_connects_without_a_request_leave_nothing(server: Server) -> None:
    for _ in range(50):
        server.tcp().abort()
    for _ in range(20):
        with server.tcp() as client:
            client.send(opening()[:30])
    assert first(server, "/both") == "websocket"


def test_clients_that_leave_before_the_answer(server: Server) -> None:
    for _ in range(20):
        client = server.tcp()
        client.send(opening("/echo"))
        client.abort()
        client = server.tcp()
        client.send(opening("/raise?deny=response"))
        client.abort()
    assert first(server, "/both") == "websocket"
    server.allow_log("^OSError: write error", "uwsgi_response_write_")


# Good input in unusual clothes


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "keep-alive,upgrade , foo"},
        {"Connection": "UPGRADE"},
        {"Upgrade": "WebSocket"},
        {"Upgrade": "WEBSOCKET"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="},
        {"Sec-WebSocket-Key": "AQIDBAUGBwgJCgsMDQ4PEC=="},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec-WebSocket-Extensions": "x-unknown; a=1, y-unknown"},
        {"X-Long": "x" * 2000},
    ],
    ids=str,
)
def test_unusual_handshakes_that_are_right(server: Server, headers: dict[str, str]) -> None:
    with server.raw(headers=headers) as client:
        assert client.answer.get("Sec-WebSocket-Extensions") is None
        client.echo("hello")


def test_the_answer_has_what_the_rfc_asks_for_and_no_more(server: Server) -> None:
    with server.raw() as client:
        names = [name.lower() for name, _ in client.answer.headers]
        assert sorted(set(names)) == sorted(names)
        assert "sec-websocket-protocol" not in names
        assert "content-length" not in names


# Subprotocols


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        ("chat.v1", "chat.v1"),
        ("chat.v1, chat.v2", "chat.v2"),
        ("other,chat.v1", "chat.v1"),
        ("other", None),
        ("Chat.V1", None),
    ],
)
def test_the_server_s_preference_among_the_offer(
    server: Server, offer: str, chosen: str | None
) -> None:
    with server.raw("/subprotocols", headers={"Sec-WebSocket-Protocol": offer}) as client:
        assert client.answer.get("Sec-WebSocket-Protocol") == chosen
        assert json.loads(client.message()) == chosen


def test_offers_in_several_fields_are_one_list(server: Server) -> None:
    # RFC 6455 11.3.4: the field "MAY appear multiple times in an HTTP request". uWSGI joins or
    # drops them before we see them; what is chosen must have been offered.
    extra = [("Sec-WebSocket-Protocol", "chat.v1"), ("Sec-WebSocket-Protocol", "other")]
    with server.raw("/subprotocols", extra=extra) as client:
        assert client.answer.get("Sec-WebSocket-Protocol") in ("chat.v1", None)


def test_a_route_without_subprotocols_chooses_none(server: Server) -> None:
    with server.raw("/echo", headers={"Sec-WebSocket-Protocol": "a, b"}) as client:
        assert client.answer.get("Sec-WebSocket-Protocol") is None
        client.echo("works")


def test_the_websockets_client_agrees_on_the_subprotocol(server: Server) -> None:
    with server.connect("/subprotocols", subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"
    with server.connect("/subprotocols", subprotocols=["other"]) as client:
        assert client.subprotocol is None


@pytest.mark.slow
@pytest.mark.parametrize("front", ["http", "nginx-proxy", "nginx-uwsgi"])
def test_our_own_101_through_every_front(engine: str, shared_server, front: str) -> None:
    # No subprotocol to choose, or a cookie to set: uWSGI's handshake cannot say that.
    server = shared_server(engine, front)
    with server.raw("/subprotocols", headers={"Sec-WebSocket-Protocol": "other"}) as client:
        assert client.answer.get("Sec-WebSocket-Protocol") is None
        assert json.loads(client.message()) is None
    with server.raw("/both?login=ann") as client:
        assert "session=" in client.answer.get("Set-Cookie")
        assert client.message() == "websocket"


# Origins


def test_requests_without_an_origin_are_not_from_a_browser(server: Server) -> None:
    assert first(server, "/both") == "websocket"


def test_the_same_origin_is_welcome(server: Server) -> None:
    headers = {"Origin": f"http://{server.address}"}
    assert first(server, "/both", headers=headers) == "websocket"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "x"])
def test_another_origin_is_403_and_logged(server: Server, origin: str) -> None:
    answer = server.refused("/both", headers={"Origin": origin})
    assert answer.status == 403
    log = server.new_log()
    assert origin in log
    assert "UWSGI_WEBSOCKET_ALLOWED_ORIGINS" in log


def test_a_refused_origin_forges_no_line_of_the_log(server: Server) -> None:
    headers = {"Origin": "https://evil\x1b[31m.example"}
    answer = server.refused("/typed/7/2.5/caf%C3%A9%0Aforged%1b[2J", headers=headers)
    assert (answer.status, b"\x1b" in answer.body) == (403, False)
    log = server.new_log()
    assert "/typed/7/2.5/café\\nforged\\x1b[2J refused: " in log
    assert "\x1b" not in log


def test_an_origin_that_only_begins_like_ours_is_refused(server: Server) -> None:
    for origin in (
        f"http://{server.address}.evil.example",
        f"http://evil.example/{server.address}",
    ):
        assert server.refused("/both", headers={"Origin": origin}).status == 403


def test_a_refused_origin_runs_no_handler_and_may_use_http(server: Server, token: str) -> None:
    headers = {"Origin": "https://evil.example"}
    assert server.refused(f"/collect/{token}", headers=headers).status == 403
    assert server.records(token) == []
    assert server.get("/both", **headers).body == b"http GET"


def test_a_route_for_all_origins(server: Server) -> None:
    for origin in ("https://evil.example", "null"):
        assert first(server, "/any-origin", headers={"Origin": origin}) == "welcome"


def test_a_route_for_a_list_of_origins(server: Server) -> None:
    good = {"Origin": "https://friend.example"}
    assert first(server, "/some-origins", headers=good) == "welcome"
    for origin in ("https://evil.example", "http://friend.example", "https://friend.example:1"):
        assert server.refused("/some-origins", headers={"Origin": origin}).status == 403


@pytest.mark.parametrize("allowed", ["*", ["https://friend.example"]])
def test_origins_of_the_configuration(shared_server, engine: str, allowed: str | list[str]) -> None:
    server = shared_server(engine, config={"UWSGI_WEBSOCKET_ALLOWED_ORIGINS": allowed})
    good = {"Origin": "https://friend.example"}
    assert first(server, "/both", headers=good) == "websocket"
    evil = {"Origin": "https://evil.example"}
    if allowed == "*":
        assert first(server, "/both", headers=evil) == "websocket"
    else:
        assert server.refused("/both", headers=evil).status == 403


# Routes


def test_one_path_for_http_and_websocket(server: Server) -> None:
    assert first(server, "/both") == "websocket"
    assert server.get("/both").body == b"http GET"
    assert server.http("POST", "/both").body == b"http POST"


def test_no_route_goes_to_flask(server: Server) -> None:
    assert server.refused("/nowhere").status == 404
    # Flask's own routes do not match an upgrade (Werkzeug's WebsocketMismatch).
    assert server.refused("/ready").status == 400


def test_url_variables(server: Server) -> None:
    assert json.loads(first(server, "/typed/7/2.5/na%20me")) == [7, 2.5, "na me"]
    assert server.refused("/typed/x/2.5/name").status == 404


def test_unicode_in_the_path(server: Server) -> None:
    assert json.loads(first(server, "/typed/7/2.5/%E2%98%83")) == [7, 2.5, "☃"]


def test_defaults(server: Server) -> None:
    assert json.loads(first(server, "/defaults/3")) == 3
    assert json.loads(first(server, "/defaults")) == 1


def test_methods_are_merged_with_get(server: Server) -> None:
    assert first(server, "/methods") == "GET"


def test_a_missing_slash_is_redirected_over_http(server: Server) -> None:
    assert first(server, "/slash/") == "slash"
    answer = server.refused("/slash")
    assert answer.status == 308
    assert answer.get("Location").endswith("/slash/")


def test_strict_slashes_off(server: Server) -> None:
    assert first(server, "/loose") == "loose"


def test_a_converter_registered_after_the_route(server: Server) -> None:
    assert first(server, "/late/abc") == "cba"


def test_add_url_rule(server: Server) -> None:
    assert first(server, "/added") == "added"


def test_url_for(server: Server) -> None:
    base = f"ws://{server.address}"
    assert json.loads(server.get("/urls").body) == [
        f"{base}/echo",
        f"{base}/typed/1/2.5/x",
        f"{base}/added",
    ]


def test_the_scheme_that_traefik_names(shared_server) -> None:
    # uWSGI takes it for the request's.
    server = shared_server("gevent")
    facts = first(server, "/scheme", headers={"X-Forwarded-Proto": "wss"})
    assert json.loads(facts) == ["https", True, f"wss://{server.address}/scheme"]


def test_query_strings_do_not_matter_to_routes(server: Server) -> None:
    assert first(server, "/both?x=1&y=/echo") == "websocket"


def test_head_and_options_go_to_flask(server: Server) -> None:
    assert server.http("OPTIONS", "/both").status == 200
    assert server.http("HEAD", "/both").status == 200
