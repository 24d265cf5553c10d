"""The process that we run in, its children, its master and the other workers of its instance."""
