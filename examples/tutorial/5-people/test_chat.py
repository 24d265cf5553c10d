import pytest
from chat import app, websocket


@pytest.fixture
def log_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a database for each test

    def log_in(name):
        client = websocket.test_client(app)
        client.post("/login", data={"name": name, "password": "secret"})
        return client

    return log_in


def test_everybody_in_a_room_hears_what_is_said(log_in):
    with (
        log_in("ada").connect("/rooms/tea") as ada,
        log_in("bob").connect("/rooms/tea") as bob,
    ):
        ada.send("Hello")
        for connection in (ada, bob):
            assert heard(connection) == "ada: Hello"


def test_who_comes_late_sees_what_was_said(log_in):
    with log_in("ada").connect("/rooms/news") as ada:
        ada.send("Hello")
        assert heard(ada) == "ada: Hello"
        with log_in("bob").connect("/rooms/news") as bob:
            assert heard(bob) == "ada: Hello"


def test_everybody_sees_who_is_here(log_in):
    with log_in("ada").connect("/rooms/people") as ada:
        assert ada.receive_json() == {"here": ["ada"]}
        with log_in("bob").connect("/rooms/people") as bob:
            assert bob.receive_json() == {"here": ["ada", "bob"]}


def heard(connection):
    """Return what somebody says next, past the lists of who is here."""
    while "here" in (message := connection.receive_json()):
        pass
    return f"{message['name']}: {message['text']}"


def test_a_stranger_is_sent_to_the_login():
    with websocket.test_client(app).connect("/rooms/tea") as stranger:
        assert stranger.receive() is None
    assert stranger.close_code == 4401


def test_logging_out_closes_all_of_a_users_pages(log_in):
    laptop, phone = log_in("ada"), log_in("ada")
    with laptop.connect("/rooms/tea") as one, phone.connect("/rooms/work") as other:
        laptop.post("/logout")
        for connection in (one, other):
            for _ in connection:  # to its end
                pass
            assert connection.close_code == 4401
