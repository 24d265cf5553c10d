/* What masking.py has in Python too, and the fast path through messages of one small frame. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* RFC 6455 5.2: the first octet of a whole message in one frame, without reserved bits. */
enum { WHOLE_TEXT = 0x81, WHOLE_BINARY = 0x82, MASK = 0x80 };
enum { LENGTH_IN_16_BITS = 126, SHORT_HEADER = 6, HEADER_16 = 8 };

/* Text up to this is unmasked on the stack. */
enum { ON_STACK = 4096 };

/* RFC 6455 5.3: each octet XOR the octet of the key at its index modulo 4. Blocks of a fixed number
   of words are what compilers make vector instructions of. */
enum { WORDS = 8, BLOCK = 8 * WORDS };

static void
unmask(char *restrict to, const char *restrict from, Py_ssize_t size, const char *key)
{
    uint64_t eight, words[WORDS];
    uint32_t four;
    Py_ssize_t i = 0;
    int j;

    memcpy(&four, key, 4);
    eight = (uint64_t)four << 32 | four;
    for (; size - i >= BLOCK; i += BLOCK) {
        memcpy(words, from + i, BLOCK);
        for (j = 0; j < WORDS; j++) {
            words[j] ^= eight;
        }
        memcpy(to + i, words, BLOCK);
    }
    for (; size - i >= 8; i += 8) {
        memcpy(words, from + i, 8);
        words[0] ^= eight;
        memcpy(to + i, words, 8);
    }
    for (; i < size; i++) {
        to[i] = from[i] ^ key[i & 3];
    }
}

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

static PyObject *
whole_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const unsigned char *frame;
    const char *key;
    Py_ssize_t size, length, limit, header;
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
    frame = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    size = PyBytes_GET_SIZE(args[0]);

    if (size < SHORT_HEADER || (frame[0] != WHOLE_TEXT && frame[0] != WHOLE_BINARY)) {
        Py_RETURN_NONE;
    }
    length = frame[1] - MASK;
    header = SHORT_HEADER;
    if (length == LENGTH_IN_16_BITS && size >= HEADER_16) {
        length = (Py_ssize_t)frame[2] << 8 | frame[3];
        header = HEADER_16;
        if (length < LENGTH_IN_16_BITS) {
            Py_RETURN_NONE;
        }
    }
    else if (length >= LENGTH_IN_16_BITS) {
        Py_RETURN_NONE;
    }
    if (size != header + length || length > limit) {
        Py_RETURN_NONE;
    }
    key = (const char *)frame + header - 4;
    if (frame[0] == WHOLE_BINARY) {
        message = PyBytes_FromStringAndSize(NULL, length);
        if (message != NULL) {
            unmask(PyBytes_AS_STRING(message), key + 4, length, key);
        }
        return message;
    }
    message = unmasked_text(key + 4, length, key);
    if (message == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return message;
}

/* A new frame around the payload; its length fits in 16 bits. */
static PyObject *
frame_of(int first, const char *payload, Py_ssize_t size)
{
    Py_ssize_t header = size < LENGTH_IN_16_BITS ? 2 : 4;
    PyObject *frame = PyBytes_FromStringAndSize(NULL, header + size);
    unsigned char *octets;

    if (frame == NULL) {
        return NULL;
    }
    octets = (unsigned char *)PyBytes_AS_STRING(frame);
    octets[0] = (unsigned char)first;
    if (header == 2) {
        octets[1] = (unsigned char)size;
    }
    else {
        octets[1] = LENGTH_IN_16_BITS;
        octets[2] = (unsigned char)(size >> 8);
        octets[3] = (unsigned char)size;
    }
    memcpy(octets + header, payload, size);
    return frame;
}

static PyObject *
whole_frame(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *message, *data, *frame;
    Py_ssize_t below;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "whole_frame(message: str | bytes, below: int)");
        return NULL;
    }
    message = args[0];
    below = PyNumber_AsSsize_t(args[1], NULL);
    if (below == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (below > 1 << 16) {
        below = 1 << 16;
    }
    if (PyBytes_CheckExact(message)) {
        if (PyBytes_GET_SIZE(message) >= below) {
            Py_RETURN_NONE;
        }
        return frame_of(WHOLE_BINARY, PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message));
    }
    if (!PyUnicode_CheckExact(message) || PyUnicode_GET_LENGTH(message) >= below) {
        Py_RETURN_NONE;
    }
    if (PyUnicode_IS_COMPACT_ASCII(message)) {
        return frame_of(WHOLE_TEXT, PyUnicode_DATA(message), PyUnicode_GET_LENGTH(message));
    }
    data = PyUnicode_AsUTF8String(message);
    if (data == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return NULL;
        }
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    if (PyBytes_GET_SIZE(data) >= below) {
        Py_DECREF(data);
        Py_RETURN_NONE;
    }
    frame = frame_of(WHOLE_TEXT, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    Py_DECREF(data);
    return frame;
}

static PyMethodDef methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL, NULL},
    {"whole_message", (PyCFunction)(void (*)(void))whole_message, METH_FASTCALL, NULL},
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
