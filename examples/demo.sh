#!/usr/bin/env bash
# Serves the chat on gevent, after all the set-up that it needs, until Ctrl-C.
# PORT moves it away from 5000; PYTHON chooses the interpreter.

set -euo pipefail
cd "$(dirname "$0")/.."
. examples/environment.sh

prepare_environment gevent

say "Open http://localhost:${PORT:-5000} in two windows; Ctrl-C ends the chat"
exec .venv/bin/python examples/chat-gevent/chat.py
