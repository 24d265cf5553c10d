"""Small things that know nothing of WebSockets: values, text and functions."""
