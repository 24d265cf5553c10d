"""One small program for each peer: a chat, of which each worker has its own process.

``/rooms/NAME`` joins a room, and what a member says goes to all members, the speaker too. With
Socket.IO ``join`` and ``say`` are events that name the room.
"""
