"""The Flask extension: routes, configuration, the middleware, and what a handler sees of Flask."""
