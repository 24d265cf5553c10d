#!/usr/bin/env bash
# Runs the linters, the type checker and the whole test suite, after all the set-up that they need.
# Arguments go to pytest: bash tests/run.sh -k browser. PYTHON chooses the interpreter. The tests run
# in four processes, since most of their time goes by waiting: bash tests/run.sh -n 0 for one. What
# fails there, if it is little, has to pass by itself, and is told of.

set -euo pipefail
cd "$(dirname "$0")/.."
. examples/environment.sh

need git command -v git
need redis-server command -v redis-server
need nginx command -v nginx
need chromium command -v chromium
need firefox-esr command -v firefox-esr
need nodejs command -v node
need node-ws test -d /usr/share/nodejs/ws
need node-typescript command -v tsc
need esbuild command -v esbuild
need openssl command -v openssl
# What debootstrap makes has no /etc/hosts.
need libnss-myhostname getent hosts localhost
need haproxy command -v haproxy
need apache2 command -v apache2
need caddy command -v caddy
need varnish command -v varnishd
need lighttpd command -v lighttpd
need prometheus command -v promtool
need systemd command -v systemd-analyze
need uwsgi-plugin-python3 ls /usr/lib/uwsgi/plugins/python3_plugin.so
need uwsgi-plugin-gevent-python3 ls /usr/lib/uwsgi/plugins/gevent_python3_plugin.so
# Debian 13 has it in the package of Python's.
need uwsgi-plugin-asyncio-python3 sh -c \
    '! grep -qE "bookworm|jammy|noble" /etc/os-release || ls /usr/lib/uwsgi/plugins/asyncio_python3_plugin.so'
need uwsgi-plugin-greenlet-python3 ls /usr/lib/uwsgi/plugins/greenlet_python3_plugin.so
need fonts-dejavu-core test -d /usr/share/fonts/truetype
prepare_environment gevent,asyncio,dev

say "Checking"
export PATH="$PWD/.venv/bin:$PATH"
ruff check
ruff format --check
mypy

say "Testing"
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
status=0
pytest -n 4 -o cache_dir="$cache" "$@" || status=$?
[ "$status" = 1 ] || exit "$status"

# A machine may be too busy for one of thousands of tests that talk to processes: it has to pass alone.
failed=$(python -c 'import json, sys; print(*json.load(sys.stdin), sep="\n")' <"$cache/v/cache/lastfailed")
[ "$(wc -l <<<"$failed")" -le 5 ] || exit "$status"
say "Running once more, one at a time, what failed"
pytest -o cache_dir="$cache" --last-failed "$@" -n 0
say "These failed beside others and passed alone; each wants to be mended:"
echo "$failed"
