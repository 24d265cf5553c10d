#!/usr/bin/env bash
# Copies what examples have in common from the one that owns it. Each directory works alone when
# it is copied out, so the others have copies: edit the owner's files, then run this.

set -euo pipefail
cd "$(dirname "$0")"

for other in echo-gevent echo-asyncio; do
    cp echo/templates/* $other/templates
done

cp chat-gevent/templates/* chat-asyncio/templates
cp chat-gevent/static/* chat-asyncio/static
cp chat-gevent/static/* uwasp-chat/static
# The same page without Flask, which fills in the engine and the files' addresses.
sed -E "s/\{\{ url_for\('static', filename='([a-z.]+)'\) \}\}/static\/\1/; s/\{\{ engine \}\}/uWASP/" \
    chat-gevent/templates/chat.html > uwasp-chat/chat.html

cp chat-gevent/static/icon.svg pubsub-gevent/static
cp chat-gevent/static/icon.svg rooms/static
cp chat-gevent/static/icon.svg htmx/static
cp pubsub-gevent/templates/* pubsub-asyncio/templates
cp pubsub-gevent/static/* pubsub-asyncio/static
