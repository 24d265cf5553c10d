"""Start uWSGI for an app, and build a uWSGI that can run it."""
