"""Masking of payloads, RFC 6455 section 5.3.

    "Octet i of the transformed data ("transformed-octet-i") is the XOR of octet i of the original
    data ("original-octet-i") with octet at index i modulo 4 of the masking key"

The same function masks and unmasks. :func:`apply_mask` is that of ``_speedups.c`` where setup.py
could compile it, and :func:`apply_mask_in_python` elsewhere; both give the same bytes.
"""

from __future__ import annotations

__all__ = ["apply_mask", "apply_mask_in_python"]

#: For each key octet the table that XORs with it, for ``bytes.translate``.
_XOR_TABLES = tuple(bytes(octet ^ key_octet for octet in range(256)) for key_octet in range(256))

#: From this size four table look-ups over strides beat one XOR of two big integers (measured).
_STRIDES_FROM = 2048


def apply_mask_in_python(data: bytes | memoryview, key: bytes) -> bytes:
    """XOR ``data`` with the masking key, repeated.

    :param data: payload octets, or a view of them.
    :param key: the masking key, 4 octets.
    """
    size = len(data)
    if size < _STRIDES_FROM:
        whole_key = key * (size >> 2) + key[: size & 3]
        masked = int.from_bytes(data, "little") ^ int.from_bytes(whole_key, "little")
        return masked.to_bytes(size, "little")
    octets = bytearray(data)
    for i in range(4):
        octets[i::4] = octets[i::4].translate(_XOR_TABLES[key[i]])
    return bytes(octets)


try:
    from ._speedups import apply_mask
except ImportError:
    apply_mask = apply_mask_in_python
