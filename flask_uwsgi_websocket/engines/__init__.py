"""Wait for descriptors in each of uWSGI's ways to run requests.

``connection`` holds every rule of a connection once. ``threads``, ``gevent`` and ``asyncio`` (and
``suspend``, for uWSGI's plain async mode) say only how a handler waits, how it is woken, and what
the worker's loop is. None of them is imported before its engine is used.
"""
