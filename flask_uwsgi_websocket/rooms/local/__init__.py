"""The backplane of one machine: UNIX sockets in a directory, and no server in between."""
