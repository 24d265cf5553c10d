/* A lock that its holder may acquire again, as Python's RLock, and that C can take without a call.

   All of it is done with the GIL held, but for the waiting: who looks at it holds the GIL. */

#ifndef FLASK_UWSGI_WEBSOCKET_LOCK_H
#define FLASK_UWSGI_WEBSOCKET_LOCK_H

#include <Python.h>

#include <pythread.h>

/* `gate` is made when somebody has to wait. It is open for one of those who wait from a release on
   until that one has the GIL. */
struct lock {
    PyObject_HEAD
    unsigned long owner;
    Py_ssize_t times;
    Py_ssize_t waiting;
    PyThread_type_lock gate;
    int is_open;
};

/* Whether the caller has it now; it had not to wait. */
static inline int
lock_try(struct lock *lock)
{
    unsigned long me = PyThread_get_thread_ident();

    if (lock->times > 0 && lock->owner != me) {
        return 0;
    }
    lock->owner = me;
    lock->times++;
    return 1;
}

static inline void
lock_leave(struct lock *lock)
{
    if (--lock->times == 0 && lock->waiting > 0 && !lock->is_open) {
        lock->is_open = 1;
        PyThread_release_lock(lock->gate);
    }
}

static int
lock_wait(struct lock *lock)
{
    if (lock->gate == NULL) {
        lock->gate = PyThread_allocate_lock();
        if (lock->gate == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        PyThread_acquire_lock(lock->gate, NOWAIT_LOCK);
    }
    lock->waiting++;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(lock->gate, WAIT_LOCK);
    Py_END_ALLOW_THREADS
    lock->waiting--;
    lock->is_open = 0;
    return 0;
}

static PyObject *
lock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct lock *lock = (struct lock *)self;
    int waits = nargs == 0 ? 1 : PyObject_IsTrue(args[0]);

    if (waits < 0) {
        return NULL;
    }
    while (!lock_try(lock)) {
        if (!waits) {
            Py_RETURN_FALSE;
        }
        if (lock_wait(lock) < 0) { /* somebody may be quicker than the one who was woken */
            return NULL;
        }
    }
    Py_RETURN_TRUE;
}

static PyObject *
lock_release(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct lock *lock = (struct lock *)self;

    if (lock->times == 0 || lock->owner != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return NULL;
    }
    lock_leave(lock);
    Py_RETURN_NONE;
}

static void
lock_dealloc(PyObject *self)
{
    struct lock *lock = (struct lock *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (lock->gate != NULL) {
        PyThread_free_lock(lock->gate);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef lock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))lock_acquire, METH_FASTCALL, NULL},
    {"release", (PyCFunction)(void (*)(void))lock_release, METH_FASTCALL, NULL},
    {"__enter__", (PyCFunction)(void (*)(void))lock_acquire, METH_FASTCALL, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))lock_release, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_dealloc, lock_dealloc},
    {Py_tp_methods, lock_methods},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "flask_uwsgi_websocket.connection._socket_speedups.Lock",
    .basicsize = sizeof(struct lock),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = lock_slots,
};

#endif
