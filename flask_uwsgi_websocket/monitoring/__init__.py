"""What shows the figures of ``metrics``: to whoever asks, to collectors, and on a page."""
