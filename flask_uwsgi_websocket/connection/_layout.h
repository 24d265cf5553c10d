/* Where the slots of a connection, and of its protocol, are: to read them is then one step, where a
   look-up by name takes a hundred. */

#ifndef FLASK_UWSGI_WEBSOCKET_LAYOUT_H
#define FLASK_UWSGI_WEBSOCKET_LAYOUT_H

#include <Python.h>

#include <structmember.h>

/* Of a connection, and from PLAIN_BELOW on of its protocol. */
enum slot {
    FD,
    LOCK,
    ENDED,
    UNSENT,
    MESSAGES,
    WAITER,
    SAW_TRAFFIC,
    TRAFFIC,
    PROTOCOL,
    READ_SIZE,
    PLAIN_BELOW,
    FAST_LIMIT,
    SLOTS
};

static const char *const slot_names[SLOTS] = {
    "fd",           "_lock",   "ended",    "_unsent",    "_messages",   "_waiter",
    "_saw_traffic", "traffic", "protocol", "_read_size", "plain_below", "fast_limit",
};

/* The slots of the classes that were met last: a process has one class of connections, mostly. */
struct layout {
    PyTypeObject *connection, *protocol;
    Py_ssize_t offsets[SLOTS];
};

/* -1 with TypeError, where a class lacks one of the slots. */
static int
find_slots(Py_ssize_t *offsets, PyTypeObject *type, int first, int end)
{
    int i;

    for (i = first; i < end; i++) {
        PyObject *found = PyObject_GetAttrString((PyObject *)type, slot_names[i]);
        PyMemberDef *member = NULL;

        /* Borrowed from another class it would be the place of something else. */
        if (found != NULL && Py_TYPE(found) == &PyMemberDescr_Type
            && PyType_IsSubtype(type, PyDescr_TYPE(found))) {
            member = ((PyMemberDescrObject *)found)->d_member;
        }
        if (member == NULL || member->type != T_OBJECT_EX) {
            PyErr_Format(PyExc_TypeError, "%s has no slot %s", type->tp_name, slot_names[i]);
            Py_XDECREF(found);
            return -1;
        }
        offsets[i] = member->offset;
        Py_DECREF(found);
    }
    return 0;
}

/* A borrowed reference; NULL for what is not set. It holds, and the layout does, until Python runs:
   neither len() of a deque nor the value of an int is Python, but all else may be. */
static inline PyObject *
peek(struct layout *layout, PyObject *object, enum slot slot)
{
    return *(PyObject **)((char *)object + layout->offsets[slot]);
}

/* Put together aside: a metaclass is Python, and may come here for another class. */
static int
find_all_slots(struct layout *layout, PyObject *connection)
{
    struct layout found = {.connection = Py_TYPE(connection)}, before;
    PyObject *protocol;

    if (find_slots(found.offsets, found.connection, FD, PLAIN_BELOW) < 0) {
        return -1;
    }
    protocol = peek(&found, connection, PROTOCOL);
    if (protocol == NULL) {
        PyErr_SetString(PyExc_TypeError, "a connection without a protocol");
        return -1;
    }
    found.protocol = Py_TYPE(protocol);
    if (find_slots(found.offsets, found.protocol, PLAIN_BELOW, SLOTS) < 0) {
        return -1;
    }
    Py_INCREF(found.connection);
    Py_INCREF(found.protocol);
    before = *layout;
    *layout = found;
    Py_XDECREF(before.connection);
    Py_XDECREF(before.protocol);
    return 0;
}

/* The protocol of a connection, borrowed, once both are known to have their slots; or NULL with an
   exception. */
static inline PyObject *
know(struct layout *layout, PyObject *connection)
{
    PyObject *protocol;

    if (Py_TYPE(connection) == layout->connection) {
        protocol = peek(layout, connection, PROTOCOL);
        if (protocol != NULL && Py_TYPE(protocol) == layout->protocol) {
            return protocol;
        }
    }
    return find_all_slots(layout, connection) < 0 ? NULL : peek(layout, connection, PROTOCOL);
}

static inline void
put(struct layout *layout, PyObject *object, enum slot slot, PyObject *value)
{
    PyObject **place = (PyObject **)((char *)object + layout->offsets[slot]);

    Py_XSETREF(*place, Py_NewRef(value));
}

/* A number in a slot; -1 with an exception, for what is none. */
static inline Py_ssize_t
number_in(struct layout *layout, PyObject *object, enum slot slot)
{
    PyObject *number = peek(layout, object, slot);

    if (number == NULL) {
        PyErr_Format(PyExc_AttributeError, "%s is not set", slot_names[slot]);
        return -1;
    }
    return PyLong_AsSsize_t(number);
}

#endif
