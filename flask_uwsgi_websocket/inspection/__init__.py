"""uWSGI from outside: its binary, where its options come from, what in them hurts WebSockets."""
