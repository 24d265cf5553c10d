"""WebSockets for Flask apps that run on uWSGI."""

__version__ = "1.0.0.dev0"
