/* The signals that stop a process, between a server's fork() in C and its own handlers of them.

   The child has the handlers of its parent then, which know nothing of it. Python has no hook for such
   a fork; the C library has. */

#include <Python.h>

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#ifdef _WIN32
#error "there is no fork()"
#endif

#include <pthread.h>

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};

static int status;
static int has_master;
static volatile sig_atomic_t exempt;
static volatile sig_atomic_t is_over; /* this process forks no such children */
static __thread sigset_t mask; /* of the thread that forks, in the parent and in the child */

static void
leave(int signum)
{
    (void)signum;
    _exit(status); /* not exit(): what runs then may need what the signal has interrupted */
}

static void
pass(int signum)
{
    (void)signum;
}

static void
heed(void)
{
    struct sigaction action, current;
    size_t i;

    memset(&action, 0, sizeof(action));
    action.sa_handler = leave;
    sigemptyset(&action.sa_mask);
    for (i = 0; i < sizeof(stop_signals) / sizeof(*stop_signals); i++) {
        sigaction(stop_signals[i], &action, NULL);
    }
    /* To a master it means what SIGINT does, and uWSGI's own unit of systemd sends it to all: whom the
       master tells must live until then. Programs that are started have the default again. */
    if (has_master && sigaction(SIGQUIT, NULL, &current) == 0 && current.sa_handler == SIG_DFL) {
        action.sa_handler = pass;
        action.sa_flags = SA_RESTART;
        sigaction(SIGQUIT, &action, NULL);
    }
}

/* Blocked over the fork: a signal often comes before the child has run at all. */
static void
before(void)
{
    sigset_t stopping;
    size_t i;

    sigemptyset(&stopping);
    for (i = 0; i < sizeof(stop_signals) / sizeof(*stop_signals); i++) {
        sigaddset(&stopping, stop_signals[i]);
    }
    pthread_sigmask(SIG_BLOCK, &stopping, &mask);
}

static void
after_in_parent(void)
{
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static void
after_in_child(void)
{
    if (!exempt && !is_over) {
        heed();
    }
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* exit_children(status, has_master): have each child exit at such a signal, until it sets other handlers. */
static PyObject *
exit_children(PyObject *module, PyObject *args)
{
    static int is_hooked;

    if (!PyArg_ParseTuple(args, "ip", &status, &has_master)) {
        return NULL;
    }
    if (!is_hooked) {
        int error = pthread_atfork(before, after_in_parent, after_in_child);

        if (error != 0) {
            errno = error;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        is_hooked = 1;
    }
    Py_RETURN_NONE;
}

/* exit_here(status, has_master): the same in this process. */
static PyObject *
exit_here(PyObject *module, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "ip", &status, &has_master)) {
        return NULL;
    }
    heed();
    Py_RETURN_NONE;
}

/* exempt_children(whether): leave those alone that are forked from now on. */
static PyObject *
exempt_children(PyObject *module, PyObject *arg)
{
    int whether = PyObject_IsTrue(arg);

    if (whether < 0) {
        return NULL;
    }
    exempt = whether;
    Py_RETURN_NONE;
}

/* end(): leave all children of this process alone. */
static PyObject *
end(PyObject *module, PyObject *unused)
{
    is_over = 1;
    Py_RETURN_NONE;
}

/* handler(): the address of what such a child does at a signal. */
static PyObject *
handler(PyObject *module, PyObject *unused)
{
    return PyLong_FromUnsignedLongLong((uintptr_t)leave);
}

static PyMethodDef methods[] = {
    {"exit_children", exit_children, METH_VARARGS, NULL},
    {"exit_here", exit_here, METH_VARARGS, NULL},
    {"exempt_children", exempt_children, METH_O, NULL},
    {"end", end, METH_NOARGS, NULL},
    {"handler", handler, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* It is about the process: an interpreter beside the first one changes nothing of it. */
static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_starting",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__starting(void)
{
    return PyModuleDef_Init(&definition);
}
