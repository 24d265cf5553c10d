"""Rooms: sets of clients, on every worker and machine, that are sent to by name.

From what an app calls to what goes over the wire, each knows those below it::

    Target          whom something is for: rooms, users, everybody (targets)
    Rooms           the rooms of an app, whichever process asks (rooms)
    LiveRooms       those of one process, once there is use for them (live)
      Delivery      what has come goes to members (delivery, fan_out, slow, shares, options)
      Membership    who is in which room here; it lasts as long as the connection (membership)
      Presence      which users are in a room anywhere, and who is told of that (presence)
    Exchange        a process and its backplane, from any thread (exchange)
      Outbox        what is to be published, in order (outbox)
      Subscriptions who wants which channel (subscriptions)
      Questions     what is asked of all workers (questions, counting)
    Backplane       carries records between workers (backplane, backplanes; memory, local, redis)
    Record          what travels, to channels (record, channels)

A Publisher has an Exchange alone, and an Access that finds the app and makes it (publisher,
access). Two modules serve the others: futures, by which a loop tells those who wait in other
threads, and loop_calls, by which they have the loop do something.
"""
