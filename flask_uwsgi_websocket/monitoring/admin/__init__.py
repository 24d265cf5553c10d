"""The admin page: the connections and rooms of all workers, live, and what can be done to them.

``mounting`` makes the Flask blueprint and the WebSocket route, ``permission`` decides who may,
``updates`` speaks with the page, ``connections`` and ``rooms`` ask all workers and answer for this
one, ``actions`` does what the page asks for, and logs who asked.
"""
