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
            assert connection.receive_json() == {"name": "ada", "text": "Hello"}


def test_a_stranger_is_sent_to_the_login():
    with websocket.test_client(app).connect("/rooms/tea") as stranger:
        assert stranger.receive() is None
    assert stranger.close_code == 4401


def test_logging_out_closes_all_of_a_users_pages(log_in):
    laptop, phone = log_in("ada"), log_in("ada")
    with laptop.connect("/rooms/tea") as one, phone.connect("/rooms/work") as other:
        laptop.post("/logout")
        for connection in (one, other):
            assert connection.receive() is None
            assert connection.close_code == 4401
