"""What uWSGI loads: the app named by TEST_APP, for the engine named by TEST_ENGINE.

The apps are written for asyncio, as a user would write them. For the blocking engines the same
source is read with the words `async` and `await` left out, which is how a user would write it
there: `msg = await ws.receive()` becomes `msg = ws.receive()`. Lines keep their numbers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from importlib.machinery import SourceFileLoader

from tests.apps import kit


class BlockingLoader(SourceFileLoader):
    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        return re.sub(rb"\basync (?=def|for|with)|\bawait ", b"", data)

    def get_code(self, name: str):  # type: ignore[no-untyped-def]
        # Past the cache of compiled files: it holds the source as it is.
        return self.source_to_code(self.get_data(self.path), self.path)


def load(name: str):  # type: ignore[no-untyped-def]
    full = f"tests.apps.{name}"
    spec = importlib.util.find_spec(full)
    assert spec is not None, full
    if not kit.ASYNC:
        spec.loader = BlockingLoader(full, spec.origin)
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


application = load(os.environ["TEST_APP"]).app
