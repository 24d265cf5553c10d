/* A lock that its holder may acquire again, as Python's RLock, and that C can take without a call.

   All of it is done with the GIL held, but for the waiting: who looks at it holds the GIL.

   A release hands it to the first of those who wait. Were it free until that thread has the GIL, a
   thread that sends again and again would have it each time: it gives the GIL up while it sends,
   and has the lock just then. */

#ifndef FLASK_UWSGI_WEBSOCKET_LOCK_H
#define FLASK_UWSGI_WEBSOCKET_LOCK_H

#include <Python.h>

#include <pythread.h>

/* One on the stack of each thread that waits, and which stays there until it has the lock. */
struct waiting {
    unsigned long thread;
    PyThread_type_lock gate; /* opened with the lock handed over */
    struct waiting *next;
};

struct lock {
    PyObject_HEAD
    unsigned long owner;
    Py_ssize_t times;
    struct waiting *first;
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
    struct waiting *next = lock->first;

    if (--lock->times == 0 && next != NULL) {
        lock->first = next->next;
        lock->owner = next->thread;
        lock->times = 1;
        PyThread_release_lock(next->gate); /* freed with the GIL held, so not before this ends */
    }
}

/* 0 once the caller has it; -1 with MemoryError. */
static int
lock_wait(struct lock *lock)
{
    struct waiting me = {PyThread_get_thread_ident(), PyThread_allocate_lock(), NULL};
    struct waiting **end = &lock->first;

    if (me.gate == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyThread_acquire_lock(me.gate, NOWAIT_LOCK);
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = &me;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(me.gate, WAIT_LOCK);
    Py_END_ALLOW_THREADS
    PyThread_free_lock(me.gate);
    return 0;
}

static PyObject *
lock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct lock *lock = (struct lock *)self;
    int waits = nargs == 0 ? 1 : PyObject_IsTrue(args[0]);

    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "acquire(blocking: bool = True)");
        return NULL;
    }
    if (waits < 0) {
        return NULL;
    }
    if (!lock_try(lock)) {
        if (!waits) {
            Py_RETURN_FALSE;
        }
        if (lock_wait(lock) < 0) {
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
    PyTypeObject *type = Py_TYPE(self);

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
