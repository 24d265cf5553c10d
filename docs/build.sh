#!/usr/bin/env bash
# Builds the site into docs/_build/html. Warnings are errors, links to pages that are not there among them.
#
#   bash docs/build.sh [html FOLDER]   the site
#   bash docs/build.sh linkcheck       asks whether the links to other sites work: needs the internet
#
# It takes the checkout's .venv, which it makes if there is none. PYTHON names another interpreter.

set -euo pipefail
cd "$(dirname "$0")/.."
builder=${1-html}

if [ -z "${PYTHON-}" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv
fi
"$PYTHON" -c 'import flask, furo, sphinx' 2>/dev/null ||
    "$PYTHON" -m pip install --quiet --editable '.[docs]'

# -E: what is kept of an earlier build hides warnings, and leaves old menus on the pages.
exec "$PYTHON" -m sphinx -W --keep-going -n -q -E -j auto -b "$builder" docs "${2-docs/_build/$builder}"
