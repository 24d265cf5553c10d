/* Frames of RFC 6455 that are whole messages, for the modules in C: masked ones that a server gets,
   unmasked ones that it sends. */

#ifndef FLASK_UWSGI_WEBSOCKET_FRAMES_H
#define FLASK_UWSGI_WEBSOCKET_FRAMES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* RFC 6455 5.2: the first octet of a whole message in one frame, without reserved bits. */
enum { WHOLE_TEXT = 0x81, WHOLE_BINARY = 0x82, MASK = 0x80 };
enum { LENGTH_IN_16_BITS = 126, LENGTH_IN_64_BITS, SHORT_HEADER = 6, HEADER_16 = 8 };
enum { LONGEST_HEADER_SENT = 10 };

/* RFC 6455 5.3: each octet XOR the octet of the key at its index modulo 4. Blocks of a fixed number
   of words are what compilers make vector instructions of. */
enum { WORDS = 8, BLOCK = 8 * WORDS };

/* `to` may be `from`. */
static inline void
unmask(char *to, const char *from, Py_ssize_t size, const char *key)
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

/* The size of the header, if these octets begin with a masked frame that is all of a message, with
   a payload of at most `limit` octets and a length of up to 16 bits; else 0. */
static inline Py_ssize_t
first_header(const unsigned char *frame, Py_ssize_t size, Py_ssize_t limit, Py_ssize_t *payload)
{
    Py_ssize_t length, header = SHORT_HEADER;

    if (size < SHORT_HEADER || (frame[0] != WHOLE_TEXT && frame[0] != WHOLE_BINARY)) {
        return 0;
    }
    length = frame[1] - MASK;
    if (length == LENGTH_IN_16_BITS && size >= HEADER_16) {
        length = (Py_ssize_t)frame[2] << 8 | frame[3];
        header = HEADER_16;
        if (length < LENGTH_IN_16_BITS) {
            return 0;
        }
    }
    else if (length < 0 || length >= LENGTH_IN_16_BITS) {
        return 0;
    }
    *payload = length;
    return size >= header + length && length <= limit ? header : 0;
}

/* The same, if that frame is all that there is. */
static inline Py_ssize_t
whole_header(const unsigned char *frame, Py_ssize_t size, Py_ssize_t limit)
{
    Py_ssize_t length, header = first_header(frame, size, limit, &length);

    return header > 0 && size == header + length ? header : 0;
}

/* Write the header of an unmasked frame, and give the header's size. */
static inline Py_ssize_t
write_header(unsigned char *to, int first, Py_ssize_t length)
{
    uint64_t rest = (uint64_t)length;
    int i;

    to[0] = (unsigned char)first;
    if (length < LENGTH_IN_16_BITS) {
        to[1] = (unsigned char)length;
        return 2;
    }
    if (length < 1 << 16) {
        to[1] = LENGTH_IN_16_BITS;
        to[2] = (unsigned char)(length >> 8);
        to[3] = (unsigned char)length;
        return 4;
    }
    to[1] = LENGTH_IN_64_BITS;
    for (i = 9; i > 1; i--) {
        to[i] = (unsigned char)rest;
        rest >>= 8;
    }
    return 10;
}

/* A message that is about to be sent: the first octet of its frame, its payload, and what keeps the
   payload if that is not the message itself. */
struct outgoing {
    int first;
    const char *payload;
    Py_ssize_t size;
    PyObject *kept;
};

/* 1 for a message that goes out in a plain frame with a payload of less than `below` octets, for
   whose `kept` the caller cares; 0 for any other object; -1 with an exception. */
static inline int
prepare(PyObject *message, Py_ssize_t below, struct outgoing *to)
{
    to->kept = NULL;
    if (PyBytes_CheckExact(message)) {
        to->first = WHOLE_BINARY;
        to->payload = PyBytes_AS_STRING(message);
        to->size = PyBytes_GET_SIZE(message);
        return to->size < below;
    }
    if (!PyUnicode_CheckExact(message) || PyUnicode_GET_LENGTH(message) >= below) {
        return 0;
    }
    to->first = WHOLE_TEXT;
    if (PyUnicode_IS_COMPACT_ASCII(message)) {
        to->payload = PyUnicode_DATA(message);
        to->size = PyUnicode_GET_LENGTH(message);
        return 1;
    }
    to->kept = PyUnicode_AsUTF8String(message);
    if (to->kept == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    to->payload = PyBytes_AS_STRING(to->kept);
    to->size = PyBytes_GET_SIZE(to->kept);
    if (to->size >= below) {
        Py_CLEAR(to->kept);
        return 0;
    }
    return 1;
}

#endif
