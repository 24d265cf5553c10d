"""OpenTelemetry: spans of connections and messages, and metrics; nothing without its SDK."""
