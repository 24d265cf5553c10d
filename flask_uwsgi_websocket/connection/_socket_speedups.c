/* What fast_io.py has in Python, in C: a message comes in, or goes out, in one call.

   Nothing here blocks but wait_and_receive, so that nothing else gives the GIL up: each time is a
   chance for another thread to take it, and for the caller to wait until it is given back. With it
   held nobody closes a descriptor meanwhile either, whose number might become somebody else's. */

#include "../codec/_frames.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* What most reads bring fits in here, and most messages that are sent. It is on the stack, which
   threads may have little of. */
enum { ON_STACK = 8192 };

enum { SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };

/* Names, of attributes and methods. */
struct state {
    PyObject *acquire, *ended, *fileno, *lock, *release, *socket, *unsent;
};

/* The descriptor of a socket, or -1 with an exception. */
static int
descriptor(PyObject *module, PyObject *sock)
{
    struct state *state = PyModule_GetState(module);
    PyObject *number = PyObject_CallMethodNoArgs(sock, state->fileno);
    long fd;

    if (number == NULL) {
        return -1;
    }
    fd = PyLong_AsLong(number);
    Py_DECREF(number);
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

/* Whether a call failed that would succeed later, or another time. */
static int
must_wait(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* The message that these octets are, else a tuple of them as they are. Octets in `data`, if that is
   not NULL; the reference to it is taken over. They are unmasked where they are. */
static PyObject *
message_or_data(char *octets, Py_ssize_t size, PyObject *data, Py_ssize_t limit)
{
    Py_ssize_t header = whole_header((unsigned char *)octets, size, limit);
    PyObject *result;

    if (header > 0) {
        char *payload = octets + header;
        const char *key = payload - 4;

        size -= header;
        if ((unsigned char)octets[0] == WHOLE_BINARY) {
            result = PyBytes_FromStringAndSize(NULL, size);
            if (result != NULL) {
                unmask(PyBytes_AS_STRING(result), payload, size, key);
            }
            Py_XDECREF(data);
            return result;
        }
        unmask(payload, payload, size, key);
        result = PyUnicode_DecodeUTF8(payload, size, NULL);
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
read_on(int fd, const char *first, Py_ssize_t have, Py_ssize_t size, Py_ssize_t limit)
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
    return message_or_data(PyBytes_AS_STRING(data), have, data, have < size ? limit : -1);
}

static ssize_t
recv_at_once(int fd, char *to, size_t size)
{
    return recv(fd, to, size, MSG_DONTWAIT);
}

/* recv, with the GIL given up until something came. -1 with errno, or with an exception. */
static ssize_t
recv_waiting(int fd, char *to, size_t size)
{
    ssize_t got;
    int error;

    do {
        Py_BEGIN_ALLOW_THREADS
        got = recv(fd, to, size, 0);
        error = errno;
        Py_END_ALLOW_THREADS
    } while (got < 0 && error == EINTR && PyErr_CheckSignals() == 0);
    errno = error;
    return got;
}

static inline PyObject *
receive_by(
    ssize_t (*read)(int, char *, size_t), PyObject *module, PyObject *const *args,
    Py_ssize_t nargs)
{
    char on_stack[ON_STACK];
    Py_ssize_t size, limit;
    ssize_t got;
    int fd;

    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "a socket, a size and a limit are needed");
        return NULL;
    }
    size = PyNumber_AsSsize_t(args[1], NULL);
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    limit = PyNumber_AsSsize_t(args[2], NULL);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (size <= 0) {
        PyErr_SetString(PyExc_ValueError, "a read takes one byte at least");
        return NULL;
    }
    fd = descriptor(module, args[0]);
    if (fd < 0) {
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
    if (got == ON_STACK && size > ON_STACK) {
        return read_on(fd, on_stack, got, size, limit);
    }
    return message_or_data(on_stack, got, NULL, got < size ? limit : -1);
}

static PyObject *
receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return receive_by(recv_at_once, module, args, nargs);
}

static PyObject *
wait_and_receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return receive_by(recv_waiting, module, args, nargs);
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

    return sendmsg(fd, &all, SEND_FLAGS);
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

static PyObject *
send_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    unsigned char frame[ON_STACK];
    struct outgoing message;
    PyObject *rest = NULL;
    Py_ssize_t below, size;
    ssize_t sent;
    int fd, is_ours;

    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "send(sock, message: str | bytes, below: int)");
        return NULL;
    }
    below = PyNumber_AsSsize_t(args[2], NULL);
    if ((below == -1 && PyErr_Occurred()) || (fd = descriptor(module, args[0])) < 0) {
        return NULL;
    }
    is_ours = prepare(args[1], below, &message);
    if (is_ours < 0) {
        return NULL;
    }
    if (!is_ours) {
        Py_RETURN_FALSE;
    }
    size = write_header(frame, message.first, message.size);
    if (message.size <= ON_STACK - LONGEST_HEADER_SENT) {
        memcpy(frame + size, message.payload, message.size);
        sent = send(fd, frame, size + message.size, SEND_FLAGS);
    }
    else {
        sent = send_apart(fd, frame, size, &message);
    }
    if (sent < 0 && must_wait()) {
        sent = 0;
    }
    if (sent < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    else if (sent == size + message.size) {
        rest = Py_NewRef(Py_None);
    }
    else {
        rest = rest_of(frame, size, &message, sent);
    }
    Py_XDECREF(message.kept);
    return rest;
}

/* Send to a connection whose lock is held: 1 where all was taken, or the rest is in its queue; 0
   where nothing was; -1 with an exception. */
static int
send_locked(PyObject *module, PyObject *connection, const char *frame, Py_ssize_t size)
{
    struct state *state = PyModule_GetState(module);
    PyObject *ended = PyObject_GetAttr(connection, state->ended);
    PyObject *unsent = PyObject_GetAttr(connection, state->unsent);
    PyObject *sock = PyObject_GetAttr(connection, state->socket);
    PyObject *done;
    ssize_t sent = -1;
    int fd, result = -1;

    if (ended != NULL && unsent != NULL && sock != NULL) {
        Py_ssize_t queued = PyObject_Size(unsent);

        result = queued < 0 ? -1 : 0;
        if (queued == 0 && ended == Py_False) {
            fd = descriptor(module, sock);
            sent = fd < 0 ? -1 : send(fd, frame, size, SEND_FLAGS);
            if (fd < 0 && !PyErr_ExceptionMatches(PyExc_OSError)) {
                result = -1;
            }
            else {
                PyErr_Clear(); /* whoever sends to it next is told what is wrong with it */
                result = sent == size;
            }
        }
    }
    if (sent > 0 && sent < size) {
        done = PyObject_CallMethod(connection, "_queue_rest", "y#", frame + sent, size - sent);
        result = done == NULL ? -1 : 1;
        Py_XDECREF(done);
    }
    Py_XDECREF(ended);
    Py_XDECREF(unsent);
    Py_XDECREF(sock);
    return result;
}

/* The same for one whose lock may be another thread's, which then may be within a frame. */
static int
send_to(PyObject *module, PyObject *connection, const char *frame, Py_ssize_t size)
{
    struct state *state = PyModule_GetState(module);
    PyObject *lock = PyObject_GetAttr(connection, state->lock);
    PyObject *held, *released, *type, *value, *traceback;
    int result = -1;

    if (lock == NULL) {
        return -1;
    }
    held = PyObject_CallMethodOneArg(lock, state->acquire, Py_False);
    if (held == Py_False) {
        result = 0;
    }
    else if (held != NULL) {
        result = send_locked(module, connection, frame, size);
        PyErr_Fetch(&type, &value, &traceback);
        released = PyObject_CallMethodNoArgs(lock, state->release);
        if (released == NULL) {
            result = -1;
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
        }
        else {
            Py_DECREF(released);
            PyErr_Restore(type, value, traceback);
        }
    }
    Py_XDECREF(held);
    Py_DECREF(lock);
    return result;
}

static PyObject *
send_to_idle(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *connections, *left;
    Py_ssize_t i;

    if (nargs != 2 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "send_to_idle(frame: bytes, connections)");
        return NULL;
    }
    connections = PySequence_Tuple(args[1]); /* ours: Python code that runs meanwhile changes none */
    if (connections == NULL) {
        return NULL;
    }
    left = PyList_New(0);
    for (i = 0; left != NULL && i < PyTuple_GET_SIZE(connections); i++) {
        PyObject *connection = PyTuple_GET_ITEM(connections, i);
        int sent = send_to(
            module, connection, PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0]));

        if (sent < 0 || (sent == 0 && PyList_Append(left, connection) < 0)) {
            Py_CLEAR(left);
        }
    }
    Py_DECREF(connections);
    return left;
}

static PyMethodDef methods[] = {
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, NULL},
    {"wait_and_receive", (PyCFunction)(void (*)(void))wait_and_receive, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))send_message, METH_FASTCALL, NULL},
    {"send_to_idle", (PyCFunction)(void (*)(void))send_to_idle, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    struct state *state = PyModule_GetState(module);

    return (state->acquire = PyUnicode_InternFromString("acquire")) == NULL
                   || (state->ended = PyUnicode_InternFromString("ended")) == NULL
                   || (state->fileno = PyUnicode_InternFromString("fileno")) == NULL
                   || (state->lock = PyUnicode_InternFromString("_lock")) == NULL
                   || (state->release = PyUnicode_InternFromString("release")) == NULL
                   || (state->socket = PyUnicode_InternFromString("socket")) == NULL
                   || (state->unsent = PyUnicode_InternFromString("_unsent")) == NULL
               ? -1
               : 0;
}

static int
clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);

    Py_CLEAR(state->acquire);
    Py_CLEAR(state->ended);
    Py_CLEAR(state->fileno);
    Py_CLEAR(state->lock);
    Py_CLEAR(state->release);
    Py_CLEAR(state->socket);
    Py_CLEAR(state->unsent);
    return 0;
}

/* Without a GIL a descriptor could be closed under us: an interpreter that has none by itself takes
   one for this module. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_socket_speedups",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = slots,
    .m_clear = clear,
};

PyMODINIT_FUNC
PyInit__socket_speedups(void)
{
    return PyModuleDef_Init(&definition);
}
