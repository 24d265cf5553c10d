/* What reading and sending by a connection's descriptor have in common. */

#ifndef FLASK_UWSGI_WEBSOCKET_DESCRIPTORS_H
#define FLASK_UWSGI_WEBSOCKET_DESCRIPTORS_H

#include "../codec/_frames.h"
#include "_layout.h"
#include "_traffic.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* What most reads bring fits in here, and most messages that are sent. It is on the stack, which
   threads may have little of. */
enum { ON_STACK = 8192 };

/* What the module keeps. Names are of methods. */
struct state {
    struct layout layout;
    PyTypeObject *lock, *traffic;
    PyObject *queue_rest, *switch_, *take_read;
};

/* The descriptor of a connection, or -1 with an exception. */
static inline int
descriptor(struct layout *layout, PyObject *connection)
{
    Py_ssize_t fd = number_in(layout, connection, FD);

    if (fd == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (fd < 0 || fd > INT_MAX) { /* -1: it was closed */
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return (int)fd;
}

/* Where a connection is counted, borrowed; NULL with an exception. */
static inline struct traffic *
traffic_of(struct state *state, PyObject *connection)
{
    PyObject *traffic = peek(&state->layout, connection, TRAFFIC);

    if (traffic == NULL || Py_TYPE(traffic) != state->traffic) {
        PyErr_SetString(PyExc_TypeError, "a connection without its traffic");
        return NULL;
    }
    return (struct traffic *)traffic;
}

/* Whether a call failed that would succeed later, or another time. */
static int
must_wait(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

#endif
