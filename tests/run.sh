#!/usr/bin/env bash
# Runs the linters, the type checker and the whole test suite, after all the set-up that they need.
# Arguments go to pytest: bash tests/run.sh -k browser. PYTHON chooses the interpreter. The tests run
# in four processes, since most of their time goes by waiting: bash tests/run.sh -n 0 for one.

set -euo pipefail
cd "$(dirname "$0")/.."
. examples/environment.sh

need git command -v git
need redis-server command -v redis-server
need nginx command -v nginx
need chromium command -v chromium
need openssl command -v openssl
need fonts-dejavu-core test -d /usr/share/fonts/truetype
prepare_environment gevent,asyncio,dev

say "Checking"
export PATH="$PWD/.venv/bin:$PATH"
ruff check
ruff format --check
mypy

say "Testing"
exec pytest -n 4 "$@"
