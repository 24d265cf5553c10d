"""How each of uWSGI's ways to run requests waits for, and writes to, a descriptor.

``connection`` holds every rule of a connection once. ``threads``, ``gevent`` and ``asyncio`` (and
``suspend``, for uWSGI's plain async mode) say only how to wait, and how to be woken. None
of them is imported before its engine is used.
"""
