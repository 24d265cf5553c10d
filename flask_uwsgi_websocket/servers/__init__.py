"""The WSGI server that accepted the connection of an upgrade request."""
