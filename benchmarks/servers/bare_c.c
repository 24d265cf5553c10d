/* The least that an echo costs: epoll_wait, recv, unmask, send. It checks nothing.

   Python accepts, and does the handshakes: serve() returns when there is one to do. */

#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 16, SIZE = 1 << 20, EVENTS = 64 };

/* Where in its stream a connection is. */
struct place {
    unsigned char header[14], key[4];
    int have, at;
    uint64_t left;
};

static struct place places[MOST];
static char in_all[MOST];
static int all[MOST], members;
static char in[SIZE], out[2 * SIZE];

static void
send_whole(int fd, const char *data, size_t size)
{
    ssize_t sent;

    while (size > 0 && (sent = send(fd, data, size, MSG_NOSIGNAL)) > 0) {
        data += sent;
        size -= (size_t)sent;
    }
}

/* Take an octet of a header; whether it was the last. The header of the answer goes to `to`. */
static int
header_ends(struct place *place, unsigned char octet, char **to)
{
    unsigned char *header = place->header;
    int i, more, length;

    header[place->have++] = octet;
    if (place->have < 2) {
        return 0;
    }
    length = header[1] & 0x7f;
    more = length == 126 ? 2 : length == 127 ? 8 : 0;
    if (place->have < 6 + more) {
        return 0;
    }
    place->left = more ? 0 : (uint64_t)length;
    for (i = 0; i < more; i++) {
        place->left = place->left << 8 | header[2 + i];
    }
    memcpy(place->key, header + 2 + more, 4);
    *(*to)++ = (char)header[0];
    *(*to)++ = (char)length;
    memcpy(*to, header + 2, (size_t)more);
    *to += more;
    place->have = place->at = 0;
    return 1;
}

static size_t
answer(struct place *place, const char *from, const char *end)
{
    char *to = out;
    uint64_t key;
    size_t size;

    while (from < end) {
        if (place->left == 0) {
            header_ends(place, (unsigned char)*from++, &to);
            continue;
        }
        size = (size_t)(end - from) < place->left ? (size_t)(end - from) : place->left;
        place->left -= size;
        for (; size > 0 && (place->at & 3); size--) {
            *to++ = *from++ ^ (char)place->key[place->at++ & 3];
        }
        memcpy(&key, place->key, 4);
        memcpy((char *)&key + 4, place->key, 4);
        for (; size >= 8; size -= 8, from += 8, to += 8) {
            uint64_t word;
            memcpy(&word, from, 8);
            word ^= key;
            memcpy(to, &word, 8);
        }
        for (; size > 0; size--) {
            *to++ = *from++ ^ (char)place->key[place->at++ & 3];
        }
    }
    return (size_t)(to - out);
}

static void
leave(int fd)
{
    int i;

    for (i = 0; i < members; i++) {
        if (all[i] == fd) {
            all[i--] = all[--members];
        }
    }
    memset(&places[fd], 0, sizeof places[fd]);
    in_all[fd] = 0;
    close(fd);
}

/* Have what this one sends go to all that have joined. */
void
join(int fd)
{
    in_all[fd] = 1;
    all[members++] = fd;
}

void
serve(int poller, int listener)
{
    struct epoll_event events[EVENTS];
    int i, j, number, accepting = 0;

    while (!accepting) {
        number = epoll_wait(poller, events, EVENTS, -1);
        for (i = 0; i < number; i++) {
            int fd = events[i].data.fd;
            ssize_t got;
            size_t size;

            if (fd == listener) {
                accepting = 1;
                continue;
            }
            got = recv(fd, in, SIZE, 0);
            /* Nobody but a client that ends sends a Close. */
            if (got <= 0 || (places[fd].left == 0 && places[fd].have == 0 && in[0] == (char)0x88)) {
                leave(fd);
                continue;
            }
            size = answer(&places[fd], in, in + got);
            for (j = 0; in_all[fd] && j < members; j++) {
                send_whole(all[j], out, size);
            }
            if (!in_all[fd]) {
                send_whole(fd, out, size);
            }
        }
    }
}
