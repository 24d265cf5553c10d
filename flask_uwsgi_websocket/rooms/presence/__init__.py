"""Presence: which users are in a room, on all workers, and who came or left.

The store of a backplane knows who is where (store; occupancy in memory, and others beside their
backplanes). Each worker tells it who comes and goes, in order (changes), and asks it every second
who has left for good: each of them is given to one worker, which calls the app's functions
(callbacks) and tells the pages in the room (announcements). Presence puts these together.
"""
