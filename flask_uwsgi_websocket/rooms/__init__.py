"""Rooms: sets of clients, on every worker and machine, that are sent to by name."""
