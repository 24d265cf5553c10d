"""The Flask apps that the tests serve with a real uWSGI, each written once for all engines."""
