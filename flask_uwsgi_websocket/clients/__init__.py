"""The client that a handler gets, at the other end of its connection, and all open ones."""
