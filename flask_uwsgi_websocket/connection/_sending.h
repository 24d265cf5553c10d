/* How a message, or a frame, goes out. */

#ifndef FLASK_UWSGI_WEBSOCKET_SENDING_H
#define FLASK_UWSGI_WEBSOCKET_SENDING_H

#include "_descriptors.h"
#include "_lock.h"

/* The GIL is given up while so much is copied into the kernel. */
enum { LARGE = 1 << 16 };

enum { SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };

/* The lock of a connection if the caller has it now, and may send at once; NULL if not, with an
   exception where something is wrong. */
static inline struct lock *
lock_if_idle(struct state *state, PyObject *connection)
{
    PyObject *unsent = peek(&state->layout, connection, UNSENT);
    PyObject *lock;

    if (unsent == NULL) {
        PyErr_SetString(PyExc_TypeError, "a connection without its queue");
        return NULL;
    }
    if (PyObject_Size(unsent) != 0 || peek(&state->layout, connection, ENDED) != Py_False) {
        return NULL;
    }
    lock = peek(&state->layout, connection, LOCK);
    if (lock == NULL || Py_TYPE(lock) != state->lock) {
        PyErr_SetString(PyExc_TypeError, "a connection without its lock");
        return NULL;
    }
    if (traffic_of(state, connection) == NULL) {
        return NULL;
    }
    return lock_try((struct lock *)lock) ? (struct lock *)lock : NULL;
}

/* A header and a payload, in one call. */
static ssize_t
send_apart(int fd, unsigned char *header, Py_ssize_t size, struct outgoing *message)
{
    struct iovec parts[2] = {
        {header, (size_t)size},
        {(char *)message->payload, (size_t)message->size},
    };
    struct msghdr all = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    int error;

    if (message->size < LARGE) {
        return sendmsg(fd, &all, SEND_FLAGS);
    }
    Py_BEGIN_ALLOW_THREADS
    sent = sendmsg(fd, &all, SEND_FLAGS);
    error = errno;
    Py_END_ALLOW_THREADS
    errno = error;
    return sent;
}

/* What is left of a frame of which so much has been taken. */
static PyObject *
rest_of(const unsigned char *header, Py_ssize_t size, struct outgoing *message, Py_ssize_t taken)
{
    Py_ssize_t of_header = taken < size ? size - taken : 0;
    Py_ssize_t skipped = taken < size ? 0 : taken - size;
    PyObject *rest = PyBytes_FromStringAndSize(NULL, of_header + message->size - skipped);

    if (rest != NULL) {
        memcpy(PyBytes_AS_STRING(rest), header + size - of_header, of_header);
        memcpy(
            PyBytes_AS_STRING(rest) + of_header, message->payload + skipped,
            message->size - skipped);
    }
    return rest;
}

/* Queue what was not taken, for who holds the lock: True where that is too much, else None. */
static PyObject *
queue_rest(struct state *state, PyObject *connection, PyObject *rest)
{
    PyObject *is_much;

    if (rest == NULL) {
        return NULL;
    }
    is_much = PyObject_CallMethodOneArg(connection, state->queue_rest, rest);
    Py_DECREF(rest);
    if (is_much == Py_False) {
        Py_SETREF(is_much, Py_NewRef(Py_None));
    }
    return is_much;
}

/* Send a message for who holds the lock: what send_message gives. */
static PyObject *
send_locked(struct state *state, PyObject *connection, struct outgoing *message)
{
    unsigned char frame[ON_STACK];
    struct traffic *traffic;
    Py_ssize_t size;
    ssize_t sent;
    int fd = descriptor(&state->layout, connection);

    if (fd < 0) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    size = write_header(frame, message->first, message->size);
    if (message->size <= ON_STACK - LONGEST_HEADER_SENT) {
        memcpy(frame + size, message->payload, message->size);
        sent = send(fd, frame, size + message->size, SEND_FLAGS);
    }
    else {
        sent = send_apart(fd, frame, size, message);
    }
    if (sent < 0) {
        if (!must_wait()) {
            Py_RETURN_FALSE; /* the next attempt tells what is wrong */
        }
        sent = 0;
    }
    traffic = traffic_of(state, connection);
    if (traffic == NULL) {
        return NULL;
    }
    traffic->messages_sent++;
    traffic->bytes_sent += sent;
    if (sent == size + message->size) {
        Py_RETURN_NONE;
    }
    return queue_rest(state, connection, rest_of(frame, size, message, sent));
}

#endif
