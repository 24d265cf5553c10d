"""What each worker needs before uWSGI's asyncio engine runs in it; the examples here share it.

uWSGI takes the current event loop after the fork. Nobody has made one there: Python 3.12 and 3.13
end with "ValueError: call stack is not deep enough", 3.14 with "There is no current event loop".
A loop made at import would not do, since all workers would share its descriptors.

And uWSGI's handler of SIGPIPE, which it installs later than this, crashes the worker when it
writes to a client that has left. ``call_soon`` waits until the loop runs, and is later still.
"""

import asyncio
import signal


def prepare():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.call_soon(signal.signal, signal.SIGPIPE, signal.SIG_IGN)
