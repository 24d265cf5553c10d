#!/usr/bin/env bash
# Releases the version that is checked out, as docs/releasing.rst tells:
#
#   bash release.sh                checks, tests and builds into dist/, and changes nothing else
#   bash release.sh --push         does so, then tags the commit and pushes the tag, which publishes it
#   bash release.sh --tagged TAG   only asks whether TAG is this version's, and CHANGES.rst ready

set -euo pipefail
cd "$(dirname "$0")"
REMOTE=${REMOTE:-origin}
say() { printf '\n== %s\n' "$*" >&2; }
die() { printf '\n%s\n' "$*" >&2; exit 1; }

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' flask_uwsgi_websocket/__init__.py)
tag=v$version

check_version() {
    [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?$ ]] ||
        die "__version__ is $version, which is none of a release."
    local title line
    title=$(sed -n 4p CHANGES.rst)
    line=$(sed -n 6p CHANGES.rst)
    [ "$title" = "Version $version" ] || die "CHANGES.rst begins with '$title', not with $version."
    [[ $line =~ ^Released\ [0-9]{4}-[0-9]{2}-[0-9]{2}\. ]] ||
        die "CHANGES.rst has no 'Released YYYY-MM-DD.' below '$title', but '$line'."
}

# Until there is a release the pages install a checkout.
check_pages() {
    ! grep -nE --exclude=releasing.rst "released yet|until .* is released|pip install '?\.([^.]|\$)" \
        README.rst docs/*.rst ||
        die "These lines install a checkout, where $version is to be had from the index: mend them."
}

check_checkout() {
    [ -z "$(git status --porcelain)" ] || die "There are changes that are not committed."
    ! git rev-parse -q --verify "refs/tags/$tag" >/dev/null || die "The tag $tag is there already."
}

# Builds in a clone, where there is nothing but what is committed.
build() {
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    git clone -q . "$place/checkout"
    rm -rf dist
    .venv/bin/python -m build --outdir dist "$place/checkout"
    .venv/bin/twine check --strict dist/*
    python3 -m venv "$place/venv"
    "$place/venv/bin/pip" install --quiet dist/*.whl
    (cd "$place" && venv/bin/python -c "
import flask_uwsgi_websocket as package
assert package.__version__ == '$version', package.__version__")
}

case ${1-} in
'' | --push) ;;
--tagged)
    [ "${2-}" = "$tag" ] || die "The tag is ${2-none}, but __version__ is $version."
    check_version
    exit
    ;;
*) die "What is $1? See the first lines of release.sh." ;;
esac

check_version
check_pages
check_checkout
say "Testing $version"
bash tests/run.sh
say "Building $version"
build
check_checkout

if [ "${1-}" != --push ]; then
    say "dist/ has $version. To publish it: bash release.sh --push"
    exit
fi
say "Tagging and publishing $version"
git tag -a "$tag" -m "Version $version"
git push "$REMOTE" "$tag"
