/* What frames.py has in Python too, and the fast path through messages of one small frame. */

#include "_frames.h"

/* Text up to this is unmasked on the stack. */
enum { ON_STACK = 4096 };

static PyObject *
apply_mask(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer data, key;
    PyObject *masked = NULL;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "apply_mask(data, key)");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(args[1], &key, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    if (key.len != 4) {
        PyErr_SetString(PyExc_ValueError, "a masking key has 4 octets");
    }
    else if ((masked = PyBytes_FromStringAndSize(NULL, data.len)) != NULL) {
        unmask(PyBytes_AS_STRING(masked), data.buf, data.len, key.buf);
    }
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return masked;
}

/* A new str, or NULL with an exception. */
static PyObject *
unmasked_text(const char *payload, Py_ssize_t size, const char *key)
{
    char on_stack[ON_STACK];
    char *octets = on_stack;
    PyObject *text;

    if (size > ON_STACK && (octets = PyMem_Malloc(size)) == NULL) {
        return PyErr_NoMemory();
    }
    unmask(octets, payload, size, key);
    text = PyUnicode_DecodeUTF8(octets, size, NULL);
    if (octets != on_stack) {
        PyMem_Free(octets);
    }
    return text;
}

/* The message in a frame, or NULL with an exception. */
static PyObject *
message_in(const char *frame, Py_ssize_t header, Py_ssize_t length)
{
    const char *payload = frame + header;
    PyObject *message;

    if ((unsigned char)frame[0] == WHOLE_TEXT) {
        return unmasked_text(payload, length, payload - 4);
    }
    message = PyBytes_FromStringAndSize(NULL, length);
    if (message != NULL) {
        unmask(PyBytes_AS_STRING(message), payload, length, payload - 4);
    }
    return message;
}

static PyObject *
whole_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const char *frame;
    Py_ssize_t limit, header;
    PyObject *message;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "whole_message(data: bytes, max_size: int)");
        return NULL;
    }
    if (!PyBytes_Check(args[0])) {
        Py_RETURN_NONE;
    }
    limit = PyNumber_AsSsize_t(args[1], NULL);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    frame = PyBytes_AS_STRING(args[0]);
    header = whole_header((const unsigned char *)frame, PyBytes_GET_SIZE(args[0]), limit);
    if (header == 0) {
        Py_RETURN_NONE;
    }
    message = message_in(frame, header, PyBytes_GET_SIZE(args[0]) - header);
    if (message == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return message;
}

static PyObject *
whole_messages(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const char *data;
    Py_ssize_t pos, end, limit, header, length;

    if (nargs != 4 || !PyBytes_Check(args[0]) || !PyList_Check(args[3])) {
        PyErr_SetString(
            PyExc_TypeError, "whole_messages(data: bytes, pos: int, max_size: int, events: list)");
        return NULL;
    }
    pos = PyNumber_AsSsize_t(args[1], NULL);
    if (pos == -1 && PyErr_Occurred()) {
        return NULL;
    }
    limit = PyNumber_AsSsize_t(args[2], NULL);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    data = PyBytes_AS_STRING(args[0]);
    end = PyBytes_GET_SIZE(args[0]);
    if (pos < 0 || pos > end) {
        PyErr_SetString(PyExc_ValueError, "no place in the data");
        return NULL;
    }
    while ((header = first_header(
                (const unsigned char *)data + pos, end - pos, limit, &length)) > 0) {
        PyObject *message = message_in(data + pos, header, length);
        int failed = message == NULL || PyList_Append(args[3], message) < 0;

        Py_XDECREF(message);
        if (failed) {
            return NULL;
        }
        pos += header + length;
    }
    return PyLong_FromSsize_t(pos);
}

static PyObject *
whole_frame(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct outgoing message;
    unsigned char header[LONGEST_HEADER_SENT];
    PyObject *frame;
    Py_ssize_t below, size;
    int is_ours;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "whole_frame(message: str | bytes, below: int)");
        return NULL;
    }
    below = PyNumber_AsSsize_t(args[1], NULL);
    if (below == -1 && PyErr_Occurred()) {
        return NULL;
    }
    is_ours = prepare(args[0], below < 1 << 16 ? below : 1 << 16, &message);
    if (is_ours < 0) {
        return NULL;
    }
    if (!is_ours) {
        Py_RETURN_NONE;
    }
    size = write_header(header, message.first, message.size);
    frame = PyBytes_FromStringAndSize(NULL, size + message.size);
    if (frame != NULL) {
        memcpy(PyBytes_AS_STRING(frame), header, size);
        memcpy(PyBytes_AS_STRING(frame) + size, message.payload, message.size);
    }
    Py_XDECREF(message.kept);
    return frame;
}

static PyMethodDef methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL, NULL},
    {"whole_message", (PyCFunction)(void (*)(void))whole_message, METH_FASTCALL, NULL},
    {"whole_messages", (PyCFunction)(void (*)(void))whole_messages, METH_FASTCALL, NULL},
    {"whole_frame", (PyCFunction)(void (*)(void))whole_frame, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

/* Nothing is kept between calls: any interpreter, with or without its GIL, may have the module. */
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
    .m_name = "_speedups",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
