"""One small program for each peer: ``/echo`` sends messages back, ``/all`` sends them to all there.

The latter in the way that suits the library.
"""
