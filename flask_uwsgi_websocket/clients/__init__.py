"""What a handler gets: the client at the other end of its connection, and all open ones."""
