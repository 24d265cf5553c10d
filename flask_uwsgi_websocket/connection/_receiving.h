/* How a message comes in. */

#ifndef FLASK_UWSGI_WEBSOCKET_RECEIVING_H
#define FLASK_UWSGI_WEBSOCKET_RECEIVING_H

#include "_descriptors.h"

/* The message that these octets are, else a tuple of them as they are; they are counted. Octets in
   `data`, if that is not NULL; the reference to it is taken over. They are unmasked where they are:
   nobody else has seen `data` yet. */
static PyObject *
message_or_data(
    struct traffic *traffic, char *octets, Py_ssize_t size, PyObject *data, Py_ssize_t limit)
{
    Py_ssize_t header = whole_header((unsigned char *)octets, size, limit);
    PyObject *result;

    traffic->bytes_received += size;
    if (header > 0) {
        char *payload = octets + header;
        const char *key = payload - 4;

        size -= header;
        if ((unsigned char)octets[0] == WHOLE_BINARY) {
            result = PyBytes_FromStringAndSize(NULL, size);
            if (result != NULL) {
                unmask(PyBytes_AS_STRING(result), payload, size, key);
                traffic->messages_received++;
            }
            Py_XDECREF(data);
            return result;
        }
        unmask(payload, payload, size, key);
        result = PyUnicode_DecodeUTF8(payload, size, NULL);
        traffic->messages_received += result != NULL;
        if (result != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            Py_XDECREF(data);
            return result;
        }
        PyErr_Clear();
        unmask(payload, payload, size, key); /* the codec tells what is wrong with it */
        size += header;
    }
    if (data == NULL && (data = PyBytes_FromStringAndSize(octets, size)) == NULL) {
        return NULL;
    }
    result = PyTuple_New(1);
    if (result == NULL) {
        Py_DECREF(data);
        return NULL;
    }
    PyTuple_SET_ITEM(result, 0, data);
    return result;
}

/* What is behind a first read that filled its buffer: up to `size` octets in all, in one object. */
static PyObject *
read_on(
    struct traffic *traffic, int fd, const char *first, Py_ssize_t have, Py_ssize_t size,
    Py_ssize_t limit)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    ssize_t got;

    if (data == NULL) {
        return NULL;
    }
    memcpy(PyBytes_AS_STRING(data), first, have);
    got = recv(fd, PyBytes_AS_STRING(data) + have, size - have, MSG_DONTWAIT);
    if (got > 0) { /* an end, or an error, is there at the next read as well */
        have += got;
    }
    if (have < size && _PyBytes_Resize(&data, have) < 0) {
        return NULL;
    }
    return message_or_data(
        traffic, PyBytes_AS_STRING(data), have, data, have < size ? limit : -1);
}

static ssize_t
recv_at_once(int fd, char *to, size_t size)
{
    return recv(fd, to, size, MSG_DONTWAIT);
}

/* recv, with the GIL given up until something came, or a signal did: its handler may have closed
   the descriptor. Another thread shuts it down first, which ends the wait, and closes it when that
   is over. -1 with errno, or with an exception. */
static ssize_t
recv_waiting(int fd, char *to, size_t size)
{
    ssize_t got;
    int error;

    Py_BEGIN_ALLOW_THREADS
    got = recv(fd, to, size, 0);
    error = errno;
    Py_END_ALLOW_THREADS
    if (got < 0 && error == EINTR) {
        PyErr_CheckSignals(); /* who called it sees what it raises */
    }
    errno = error;
    return got;
}

/* Not inline: greenlets that switch have what is on the stack copied. */
static __attribute__((noinline)) PyObject *
receive_by(ssize_t (*read)(int, char *, size_t), struct state *state, PyObject *connection)
{
    struct layout *layout = &state->layout;
    struct traffic *traffic;
    PyObject *protocol = know(layout, connection);
    char on_stack[ON_STACK];
    Py_ssize_t size, limit;
    ssize_t got;
    int fd;

    if (protocol == NULL) {
        return NULL;
    }
    size = number_in(layout, connection, READ_SIZE);
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    limit = number_in(layout, protocol, FAST_LIMIT);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (size <= 0) {
        PyErr_SetString(PyExc_ValueError, "a read takes one byte at least");
        return NULL;
    }
    fd = descriptor(layout, connection);
    if (fd < 0 || traffic_of(state, connection) == NULL) {
        return NULL;
    }
    got = read(fd, on_stack, size < ON_STACK ? size : ON_STACK);
    if (got < 0) {
        if (PyErr_Occurred()) { /* of a handler of signals */
            return NULL;
        }
        if (must_wait()) {
            Py_RETURN_NONE;
        }
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    traffic = traffic_of(state, connection); /* again: Python may have run meanwhile */
    if (traffic == NULL) {
        return NULL;
    }
    if (got == ON_STACK && size > ON_STACK) {
        return read_on(traffic, fd, on_stack, got, size, limit);
    }
    return message_or_data(traffic, on_stack, got, NULL, got < size ? limit : -1);
}

/* The handler that may run on with a message at once, borrowed; NULL if none may, with an exception
   where something is wrong. */
static inline PyObject *
waiter_of(struct layout *layout, PyObject *connection)
{
    PyObject *messages = peek(layout, connection, MESSAGES);
    PyObject *waiter;

    if (messages == NULL || PyObject_Size(messages) != 0
        || peek(layout, connection, ENDED) != Py_False) {
        return NULL;
    }
    waiter = peek(layout, connection, WAITER);
    return waiter == Py_None ? NULL : waiter;
}

/* What read_in_python does, but that the handler runs on without a step of Python between. */
static PyObject *
read_by(struct state *state, PyObject *connection)
{
    PyObject *got = receive_by(recv_at_once, state, connection);
    PyObject *waiter, *result;

    if (got == Py_None) {
        return got;
    }
    if (got == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OSError)) {
            return NULL;
        }
        PyErr_Clear();
        got = Py_BuildValue("(y)", "");
        if (got == NULL) {
            return NULL;
        }
    }
    waiter = PyTuple_CheckExact(got) ? NULL : waiter_of(&state->layout, connection);
    if (waiter != NULL) {
        put(&state->layout, connection, SAW_TRAFFIC, Py_True);
        Py_INCREF(waiter);
        result = PyObject_CallMethodOneArg(waiter, state->switch_, got);
        Py_DECREF(waiter);
        if (result != Py_NotImplemented) {
            Py_DECREF(got);
            return result;
        }
        Py_DECREF(result);
    }
    else if (PyErr_Occurred()) {
        Py_DECREF(got);
        return NULL;
    }
    result = PyObject_CallMethodOneArg(connection, state->take_read, got);
    Py_DECREF(got);
    return result;
}

#endif
