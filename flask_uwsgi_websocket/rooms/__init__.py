"""Rooms: sets of clients, on every worker and machine, that are sent to by name.

From what an app calls to what goes over the wire, each knows those below it::

    Target          whom something is for: rooms, users, everybody (targets)
    Rooms           the rooms of an app, whichever process asks (rooms)
    LiveRooms       those of one process, once there is use for them (live)
      Joining       how connections come into each kind of room (joining)
      KeptRooms     the logs of kept rooms are followed (kept, reader), and replayed (replay)
      Delivery      what has come goes to members (delivery, fan_out, slow, shares, options)
      Membership    who is in which room here; it lasts as long as the connection (membership)
      Presence      which users are in a room anywhere, and who is told of that (presence)
    Exchange        a process and its backplane, from any thread (exchange)
      Outbox        what is to be published, in order (outbox)
      Subscriptions who wants which channel (subscriptions)
      Questions     what is asked of all workers (questions, counting)
    Backplane       carries records between workers (backplane, backplanes; memory, local, redis)
    Record          what travels, to channels (record, channels)

A Publisher has an Exchange alone, an Access that finds the app and makes it, and what the app has
described of its rooms (publisher, access, described). What is sent to kept rooms is divided, for
each has a log of its own (dividing); who asks for it reads there (past, positions). The memory
backplane has such logs in memory_log; what is forgotten when, says retention. All of them count in
metrics, and clock says by whose clock a record was sent. Two modules serve the others: futures, by
which a loop tells those who wait in other threads, and loop_calls, by which they have the loop do
something.
"""
