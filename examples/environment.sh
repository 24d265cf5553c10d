# shellcheck shell=bash
# Sourced by examples/demo.sh and tests/run.sh, in the root of the checkout. The one prepares what
# a demo needs, the other adds to it; both leave everything in .venv, apart from Debian packages
# that are missing: those come from apt-get, as root or through sudo.
#
# PYTHON chooses the interpreter (default: python3).

PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin  # where Debian keeps nginx
missing=()

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf '\n%s\n' "$*" >&2; exit 1; }

# need PACKAGE CHECK...: when the check fails, install_packages installs the package
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

has_header() { echo "#include <$1>" | cc -E -; }

has_python_header() {
    "$PYTHON" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'
}

install_packages() {
    [ ${#missing[@]} -gt 0 ] || return 0
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    if ! command -v apt-get >/dev/null || { [ ${#root[@]} != 0 ] && ! command -v sudo >/dev/null; }
    then
        die "Please install what these Debian packages hold, then try again: ${missing[*]}"
    fi
    say "Installing ${missing[*]}"
    # Servers that come as packages are not to serve by themselves: several want the same port.
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive sh -ec '
        policy=/usr/sbin/policy-rc.d
        [ -e $policy ] || { printf "#!/bin/sh\nexit 101\n" >$policy; chmod +x $policy; trap "rm $policy" EXIT; }
        apt-get -q -y update
        apt-get -q -y install --no-install-recommends "$@"
    ' sh "${missing[@]}"
    missing=()
}

# prepare_environment EXTRAS: .venv with a uWSGI that has every engine, and this package
prepare_environment() {
    need python3 command -v "$PYTHON"
    need python3-venv "$PYTHON" -c 'import ensurepip, venv'
    need python3-dev has_python_header
    need build-essential command -v cc
    need libcrypt-dev has_header crypt.h
    need libssl-dev has_header openssl/ssl.h
    install_packages
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "Python 3.10 or newer is needed, $PYTHON is $("$PYTHON" -V). PYTHON=... names another."
    has_python_header 2>/dev/null ||
        die "$PYTHON has no header files (Python.h), which uWSGI needs to be built."

    say "Preparing .venv with $("$PYTHON" -V)"
    [ -x .venv/bin/pip ] || "$PYTHON" -m venv .venv
    [ "$(.venv/bin/python -V)" = "$("$PYTHON" -V)" ] ||
        die "There is a .venv with $(.venv/bin/python -V): remove it, or say PYTHON=.venv/bin/python."
    .venv/bin/pip install --quiet --editable .
    say "Building uWSGI"
    .venv/bin/python -m flask_uwsgi_websocket install-uwsgi
    say "Installing the rest"
    .venv/bin/pip install --quiet --editable ".[$1]"
}
