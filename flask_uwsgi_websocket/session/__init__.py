"""From an upgrade request to the end of its connection; knows no Flask."""
