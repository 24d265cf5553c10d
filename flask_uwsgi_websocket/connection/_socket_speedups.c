/* What fast_io.py has in Python, in C: a message comes in, or goes out, in one call.

   Nothing here blocks but wait_and_receive, so that nothing else gives the GIL up, but for large
   messages: each time is a chance for another thread to take it, and for the caller to wait until
   it is given back. With it held, or the lock of the connection, nobody closes a descriptor
   meanwhile either, whose number might become somebody else's. */

#include "_receiving.h"
#include "_sending.h"

static PyObject *
receive(PyObject *module, PyObject *connection)
{
    struct state *state = PyModule_GetState(module);

    return receive_by(recv_at_once, state, connection);
}

static PyObject *
wait_and_receive(PyObject *module, PyObject *connection)
{
    struct state *state = PyModule_GetState(module);

    return receive_by(recv_waiting, state, connection);
}

static PyObject *
read_message(PyObject *module, PyObject *connection)
{
    return read_by(PyModule_GetState(module), connection);
}

/* None where all was taken, or queued; True where that is too much; False where nothing was done,
   and what is wrong, if it is, shows on the general way. */
static PyObject *
send_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct state *state = PyModule_GetState(module);
    struct outgoing message;
    struct lock *lock;
    PyObject *protocol, *result;
    Py_ssize_t below;
    int is_ours;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "send(connection, message: str | bytes)");
        return NULL;
    }
    protocol = know(&state->layout, args[0]);
    if (protocol == NULL) { /* one that is still to be opened */
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    below = number_in(&state->layout, protocol, PLAIN_BELOW);
    if (below == -1 && PyErr_Occurred()) {
        return NULL;
    }
    is_ours = prepare(args[1], below, &message);
    if (is_ours < 0) {
        return NULL;
    }
    lock = is_ours ? lock_if_idle(state, args[0]) : NULL;
    if (lock == NULL) {
        Py_XDECREF(message.kept);
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    Py_INCREF(lock);
    result = send_locked(state, args[0], &message);
    lock_leave(lock);
    Py_DECREF(lock);
    Py_XDECREF(message.kept);
    return result;
}

/* What goes to many: one frame or several, in one piece. */
struct frames {
    const char *octets;
    Py_ssize_t size, longest, count;
};

/* Send frames to a connection whose lock is held: 1 where all was taken, or the rest is in its
   queue; 0 where nothing was; -1 with an exception. */
static int
send_frames(struct state *state, PyObject *connection, const struct frames *frames)
{
    int fd = descriptor(&state->layout, connection);
    ssize_t sent = fd < 0 ? -1 : send(fd, frames->octets, frames->size, SEND_FLAGS);
    struct traffic *traffic;
    PyObject *queued;

    if (sent <= 0) {
        PyErr_Clear(); /* whoever sends to it next is told what is wrong with it */
        return 0;
    }
    traffic = traffic_of(state, connection);
    if (traffic == NULL) {
        return -1;
    }
    traffic->messages_sent += frames->count;
    traffic->bytes_sent += sent;
    if (sent < frames->size) {
        queued = queue_rest(
            state, connection,
            PyBytes_FromStringAndSize(frames->octets + sent, frames->size - sent));
        Py_XDECREF(queued);
        return queued == NULL ? -1 : 1;
    }
    return 1;
}

static int
send_to(struct state *state, PyObject *connection, const struct frames *frames)
{
    PyObject *protocol = know(&state->layout, connection);
    struct lock *lock;
    Py_ssize_t below;
    int result;

    if (protocol == NULL) {
        return -1;
    }
    below = number_in(&state->layout, protocol, PLAIN_BELOW);
    lock = frames->longest < below ? lock_if_idle(state, connection) : NULL;
    if (lock == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_INCREF(lock);
    result = send_frames(state, connection, frames);
    lock_leave(lock);
    Py_DECREF(lock);
    return result;
}

static PyObject *
send_to_idle(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct state *state = PyModule_GetState(module);
    PyObject *connections, *left;
    struct frames frames;
    Py_ssize_t i;

    if (nargs != 4 || !PyBytes_Check(args[0])) {
        PyErr_SetString(
            PyExc_TypeError, "send_to_idle(frames: bytes, longest: int, count: int, connections)");
        return NULL;
    }
    frames.octets = PyBytes_AS_STRING(args[0]);
    frames.size = PyBytes_GET_SIZE(args[0]);
    frames.longest = PyLong_AsSsize_t(args[1]);
    if (frames.longest == -1 && PyErr_Occurred()) {
        return NULL;
    }
    frames.count = PyLong_AsSsize_t(args[2]);
    if (frames.count == -1 && PyErr_Occurred()) {
        return NULL;
    }
    connections = PySequence_Tuple(args[3]); /* ours: Python code that runs meanwhile changes none */
    if (connections == NULL) {
        return NULL;
    }
    left = PyList_New(0);
    for (i = 0; left != NULL && i < PyTuple_GET_SIZE(connections); i++) {
        PyObject *connection = PyTuple_GET_ITEM(connections, i);
        int sent = send_to(state, connection, &frames);

        if (sent < 0 || (sent == 0 && PyList_Append(left, connection) < 0)) {
            Py_CLEAR(left);
        }
    }
    Py_DECREF(connections);
    return left;
}

/* A method of connections. */
static PyMethodDef read_method = {"read", read_message, METH_O, NULL};

static PyMethodDef methods[] = {
    {"receive", receive, METH_O, NULL},
    {"wait_and_receive", wait_and_receive, METH_O, NULL},
    {"send", (PyCFunction)(void (*)(void))send_message, METH_FASTCALL, NULL},
    {"send_to_idle", (PyCFunction)(void (*)(void))send_to_idle, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    PyObject *function = PyCFunction_New(&read_method, module);
    PyObject *method = function == NULL ? NULL : PyInstanceMethod_New(function);
    int failed = method == NULL || PyModule_AddObjectRef(module, "read", method) < 0;

    Py_XDECREF(function);
    Py_XDECREF(method);
    return failed || (state->queue_rest = PyUnicode_InternFromString("_queue_rest")) == NULL
                   || (state->switch_ = PyUnicode_InternFromString("switch")) == NULL
                   || (state->take_read = PyUnicode_InternFromString("_take_read")) == NULL
                   || (state->lock = (PyTypeObject *)PyType_FromSpec(&lock_spec)) == NULL
                   || PyModule_AddType(module, state->lock) < 0
                   || (state->traffic = (PyTypeObject *)PyType_FromSpec(&traffic_spec)) == NULL
                   || PyModule_AddType(module, state->traffic) < 0
               ? -1
               : 0;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);

    Py_VISIT(state->layout.connection);
    Py_VISIT(state->layout.protocol);
    Py_VISIT(state->lock);
    Py_VISIT(state->traffic);
    return 0;
}

static int
clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);

    Py_CLEAR(state->layout.connection);
    Py_CLEAR(state->layout.protocol);
    Py_CLEAR(state->lock);
    Py_CLEAR(state->traffic);
    return 0;
}

/* Not in clear(), after which functions may still be called: these names are part of no cycle. */
static void
free_state(void *module)
{
    struct state *state = PyModule_GetState(module);

    clear(module);
    Py_CLEAR(state->queue_rest);
    Py_CLEAR(state->switch_);
    Py_CLEAR(state->take_read);
}

/* Without a GIL a descriptor could be closed under us, and locks are taken under it: an interpreter
   that has none by itself takes one for this module. */
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
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_state,
};

PyMODINIT_FUNC
PyInit__socket_speedups(void)
{
    return PyModuleDef_Init(&definition);
}
