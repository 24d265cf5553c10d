"""``flask websocket``: commands for the terminal."""
