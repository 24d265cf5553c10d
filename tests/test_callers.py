"""Who calls: the thread, greenlet and Task that a request remembers."""

from __future__ import annotations

import gc
import weakref

import greenlet

from flask_uwsgi_websocket.helpers.threads import caller


class Request(greenlet.greenlet):
    """What refers to itself by the caller that it remembers, as a request does."""

    def run(self) -> None:
        self.caller = caller()
        gc.collect()


def test_a_greenlet_in_which_garbage_is_collected_is_freed_once_it_has_ended() -> None:
    request = Request()
    request.switch()
    assert request.dead
    reference = weakref.ref(request)
    del request
    gc.collect()
    assert reference() is None
