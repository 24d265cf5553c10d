/* What went over one connection: as metrics/traffic.py, in 64 bytes, and counted without a call.

   Whoever counts holds the GIL, so that two threads never lose a count. */

#ifndef FLASK_UWSGI_WEBSOCKET_TRAFFIC_H
#define FLASK_UWSGI_WEBSOCKET_TRAFFIC_H

#include <Python.h>

#include <structmember.h>
#include <time.h>

#ifdef __APPLE__
#define MONOTONIC CLOCK_UPTIME_RAW /* the clock that Python has there */
#else
#define MONOTONIC CLOCK_MONOTONIC
#endif

struct traffic {
    PyObject_HEAD
    long long messages_received, messages_sent, bytes_received, bytes_sent;
    double opened; /* as time.monotonic() */
    PyObject *error;
};

static PyObject *
traffic_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    struct traffic *self;
    struct timespec now;

    if (PyTuple_GET_SIZE(args) > 0 || (keywords != NULL && PyDict_GET_SIZE(keywords) > 0)) {
        PyErr_SetString(PyExc_TypeError, "Traffic() takes no arguments");
        return NULL;
    }
    self = (struct traffic *)type->tp_alloc(type, 0); /* with zeros */
    if (self != NULL) {
        clock_gettime(MONOTONIC, &now);
        self->opened = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
    return (PyObject *)self;
}

static void
traffic_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(((struct traffic *)self)->error);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Methods that add, since writing to a member takes Python ten times as long as a call. */
static PyObject *
traffic_add_received(PyObject *self, PyObject *messages)
{
    long long count = PyLong_AsLongLong(messages);

    if (count == -1 && PyErr_Occurred()) {
        return NULL;
    }
    ((struct traffic *)self)->messages_received += count;
    Py_RETURN_NONE;
}

static PyObject *
traffic_add_sent(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct traffic *traffic = (struct traffic *)self;
    long long messages, size;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "add_sent(messages: int, size: int)");
        return NULL;
    }
    messages = PyLong_AsLongLong(args[0]);
    size = messages == -1 && PyErr_Occurred() ? -1 : PyLong_AsLongLong(args[1]);
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    traffic->messages_sent += messages;
    traffic->bytes_sent += size;
    Py_RETURN_NONE;
}

static PyMethodDef traffic_methods[] = {
    {"add_received", traffic_add_received, METH_O, NULL},
    {"add_sent", (PyCFunction)(void (*)(void))traffic_add_sent, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef traffic_members[] = {
    {"messages_received", T_LONGLONG, offsetof(struct traffic, messages_received), 0, NULL},
    {"messages_sent", T_LONGLONG, offsetof(struct traffic, messages_sent), 0, NULL},
    {"bytes_received", T_LONGLONG, offsetof(struct traffic, bytes_received), 0, NULL},
    {"bytes_sent", T_LONGLONG, offsetof(struct traffic, bytes_sent), 0, NULL},
    {"opened", T_DOUBLE, offsetof(struct traffic, opened), 0, NULL},
    {"error", T_OBJECT, offsetof(struct traffic, error), 0, NULL}, /* NULL is None */
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot traffic_slots[] = {
    {Py_tp_new, traffic_new},
    {Py_tp_dealloc, traffic_dealloc},
    {Py_tp_members, traffic_members},
    {Py_tp_methods, traffic_methods},
    {0, NULL},
};

static PyType_Spec traffic_spec = {
    .name = "flask_uwsgi_websocket.connection._socket_speedups.Traffic",
    .basicsize = sizeof(struct traffic),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = traffic_slots,
};

#endif
