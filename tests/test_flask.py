"""A handler is at home in Flask: contexts, functions around requests, blueprints, errors."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import InvalidStatus

from tests.rawclient import RawClient, close_frame
from tests.server import Server, eventually


def ask(client: RawClient, text: str = "?"):
    client.text(text)
    return json.loads(client.message())


# The request context


def test_the_handler_sees_its_request(server: Server) -> None:
    headers = {"Cookie": "flavour=oat"}
    with server.raw("/context/one?a=1&b=%E2%98%83", headers=headers) as client:
        for _ in range(3):
            assert ask(client) == {
                "path": "/context/one",
                "args": {"a": "1", "b": "☃"},
                "method": "GET",
                "cookie": "oat",
                "user": None,
                "guarded": True,
                "app": "tests.apps.standard",
            }


def test_the_session_of_an_http_login(server: Server) -> None:
    cookie = server.get("/login/ann").headers["Set-Cookie"].partition(";")[0]
    with server.raw("/context/x", headers={"Cookie": cookie}) as client:
        assert ask(client)["user"] == "ann"


def test_a_cookie_set_before_the_handshake_reaches_the_client(server: Server) -> None:
    with server.raw("/context/x?login=bob") as client:
        cookie = client.answer.get("Set-Cookie").partition(";")[0]
        assert ask(client)["user"] == "bob"
    with server.raw("/context/x", headers={"Cookie": cookie}) as client:
        assert client.answer.get("Set-Cookie") is None
        assert ask(client)["user"] == "bob"


def test_contexts_of_many_connections_never_mix(server: Server) -> None:
    clients = {name: server.raw(f"/context/{name}?n={name}&login={name}") for name in "abcdefghij"}
    try:
        for _ in range(10):
            for client in clients.values():
                client.text("?")
            for name, client in clients.items():
                seen = json.loads(client.message())
                assert (seen["path"], seen["user"]) == (f"/context/{name}", name)
                assert seen["args"]["n"] == name
    finally:
        for client in clients.values():
            client.close()


def test_g_belongs_to_one_connection(server: Server) -> None:
    with server.raw("/g/one") as one, server.raw("/g/two") as two:
        for text in ("a", "b", "c"):
            one.text(text)
            two.text(text.upper())
            assert server.get("/both").body == b"http GET"
        assert [one.message() for _ in range(3)] == ["one: a", "one: a b", "one: a b c"]
        assert [two.message() for _ in range(3)] == ["two: A", "two: A B", "two: A B C"]


def test_what_runs_beside_the_handler_sees_its_request(server: Server) -> None:
    with (
        server.raw("/spawned-context/one?login=ann") as one,
        server.raw("/spawned-context/two?login=bob") as two,
    ):
        assert one.message() == "one /spawned-context/one ann"
        assert two.message() == "two /spawned-context/two bob"


def test_contexts_of_one_s_own_as_in_the_old_readme(server: Server) -> None:
    with server.raw("/old-context?n=7") as client:
        assert client.message() == "/old-context"
        assert client.message() == "7"


def test_without_a_request_context(serve, engine: str, token: str) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_REQUEST_CONTEXT": False})
    with server.raw(f"/has-context?teardown={token}&before={token}-before") as client:
        assert client.message() == "False"
        assert client.message() == "/has-context"
    assert server.refused("/has-context?deny=abort").status == 401
    # before_request has run; its context was torn down, once, before the handler's own.
    assert server.record(f"{token}-before") == {"path": "/has-context"}


def test_with_a_request_context(server: Server) -> None:
    with server.raw("/has-context") as client:
        assert client.message() == "True"
        assert client.message() == "/has-context"


# Around the request


def test_before_request_runs_once_before_the_handshake(server: Server, token: str) -> None:
    with server.raw(f"/echo?before={token}") as client:
        assert server.records(token) == [{"path": "/echo"}]
        client.text("x")
        client.message()
    assert server.records(token) == [{"path": "/echo"}]


def test_a_response_of_before_request_is_an_http_answer(server: Server) -> None:
    answer = server.refused("/echo?deny=response")
    assert (answer.status, answer.body) == (418, b"denied by a response")
    assert answer.get("X-Denied") == "yes"
    assert answer.get("X-After") == "yes"


def test_an_abort_in_before_request_is_shaped_by_the_errorhandler(server: Server) -> None:
    answer = server.refused("/echo?deny=abort")
    assert (answer.status, answer.body) == (401, b"unauthorized, by an errorhandler")
    assert answer.get("X-After") == "yes"


def test_a_redirect_of_before_request(server: Server) -> None:
    answer = server.refused("/echo?deny=redirect")
    assert answer.status == 302
    assert answer.get("Location") == "/ready"


def test_an_exception_in_before_request_is_a_500(server: Server, token: str) -> None:
    answer = server.refused(f"/echo?deny=error&signal={token}")
    assert answer.status == 500
    assert server.records(token) == [{"exception": "raised before the handshake, on purpose"}]
    log = server.new_log()
    assert log.count("ValueError: raised before the handshake, on purpose") == 1
    server.allow_log("Traceback")


def test_a_refused_client_never_reaches_the_handler(server: Server, token: str) -> None:
    server.refused(f"/collect/{token}?deny=response")
    server.wait_idle()
    assert server.records(token) == []


def test_the_websockets_client_sees_the_refusal(server: Server) -> None:
    with pytest.raises(InvalidStatus) as caught, server.connect("/echo?deny=response"):
        pass
    assert caught.value.response.status_code == 418
    assert caught.value.response.body == b"denied by a response"


@pytest.mark.parametrize("end", ["leave", "abort", "close", "handler"])
def test_teardown_runs_once_when_the_connection_has_ended(
    server: Server, token: str, end: str
) -> None:
    path = "/return" if end == "handler" else "/echo"
    with server.raw(f"{path}?teardown={token}") as client:
        if end == "handler":
            assert client.message() == "bye"
            client.read_close()
            client.send(close_frame(1000))
        else:
            client.text("x")
            client.message()
            assert server.records(token) == []
            getattr(client, end)()
    assert server.record(token) == {"error": None}
    server.wait_idle()
    assert server.records(token) == [{"error": None}]


@pytest.mark.parametrize("deny", ["response", "abort"])
def test_teardown_runs_once_for_a_refused_client(server: Server, token: str, deny: str) -> None:
    server.refused(f"/echo?deny={deny}&teardown={token}")
    server.wait_idle()
    assert len(server.records(token)) == 1


def test_teardown_gets_the_handler_s_exception(server: Server, token: str) -> None:
    with server.raw(f"/raise?teardown={token}") as client:
        client.text("now")
        assert client.read_close().code == 1011
    assert server.record(token) == {"error": "ValueError"}
    server.wait_idle()
    assert len(server.records(token)) == 1
    server.allow_log("Traceback")


# Errors


def test_an_exception_reaches_got_request_exception(server: Server, token: str) -> None:
    with server.raw(f"/raise?signal={token}") as client:
        client.text("now")
        assert client.read_close().code == 1011
    assert server.record(token) == {"exception": "raised on purpose"}
    server.wait_idle()
    assert len(server.records(token)) == 1
    log = server.new_log()
    assert "/raise" in log
    server.allow_log("Traceback")


def test_leaving_is_no_exception(server: Server, token: str) -> None:
    for way in ("abort", "close", "leave"):
        client = server.raw(f"/quickstart?signal={token}")
        getattr(client, way)()
    server.raw(f"/send-until-closed/{token}-x?signal={token}").abort()
    server.record(f"{token}-x")
    server.wait_idle()
    assert server.records(token) == []
    assert "Traceback" not in server.new_log()


# Blueprints


def test_a_blueprint_under_its_prefix(server: Server) -> None:
    with server.raw("/blueprint/hello") as client:
        assert json.loads(client.message())[1] is True
    assert server.refused("/hello").status == 404


def test_a_blueprint_in_a_blueprint(server: Server) -> None:
    with server.raw("/blueprint/child/hello") as client:
        assert json.loads(client.message())[1] is True


@pytest.mark.parametrize("path", ["/blueprint/hello", "/blueprint/child/hello"])
def test_before_request_of_a_blueprint_is_asked_too(server: Server, path: str) -> None:
    answer = server.refused(f"{path}?deny=blueprint")
    assert (answer.status, answer.body) == (403, b"denied by the blueprint")
    with server.raw("/echo?deny=blueprint") as client:
        client.echo("not of the blueprint")


def test_http_goes_on_beside_open_connections(server: Server) -> None:
    clients = [server.raw() for _ in range(10)]
    for _ in range(20):
        assert server.get("/both").body == b"http GET"
    for client in clients:
        client.close()
    eventually(lambda: server.get("/ready").status == 200, "HTTP to answer")
