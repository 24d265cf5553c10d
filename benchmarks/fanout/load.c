/* The load on rooms: it reads what all their members get, counts and checks it, and has the next
   message said when all have one. Python makes the connections and hands them over.

   A message is a text of a fixed size: a mark ('#', or '?' in a probe), one digit for who of its
   room's publishers said it, nine for the number that it has with that publisher, and filler. What
   the server puts before and behind the text (Socket.IO's event) is of a fixed size too. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum {
    PUBLISHERS = 8, /* of a room at most */
    MARK = 11,      /* octets before the filler */
    RING = 512,     /* messages of a room whose times are known */
    PART = 2048,    /* the largest frame that may come in pieces */
    WORDS = 256,    /* the most that is around a text */
    TIMES = 1 << 20,
    EVENTS = 256,
    INPUT = 1 << 16
};

/* Seconds after which a message is no longer waited for. */
static const double PATIENCE = 5.0;

struct member {
    int fd, room;
    int heard; /* of whom there was a probe, as bits */
    int have;  /* octets in part */
    uint32_t next[PUBLISHERS];
    uint64_t seen[PUBLISHERS]; /* of the 64 numbers before the next one */
    unsigned char part[PART];
};

struct flight {
    double since;
    uint32_t number;
    int left;
    char waited_for;
};

struct room {
    int members, publishers;
    int heard; /* by all, as bits */
    int publisher[PUBLISHERS];
    uint32_t said;
    int under_way;
    size_t before_size, behind_size;
    char before[WORDS], behind[WORDS];
    struct flight flights[RING];
};

static struct member *members;
static struct room *rooms;
static int member_count, room_count;

/* What the connections are polled with; Python closes it. */
int load_poller = -1;
static size_t text_size, before_size, behind_size;
static int burst, running;
static unsigned char input[INPUT];
static char filler[PART];
static double last_look;

static double times[TIMES];
static int times_taken;
static uint64_t delivered, completed, twice, late, given_up, probes_heard;
static char failure[200];

static double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
fail(const char *why, int member)
{
    if (!failure[0]) {
        snprintf(failure, sizeof failure, "%s (connection %d)", why, member);
    }
    running = 0;
}

int
load_new(int most_members, int most_rooms, int size, int before, int behind)
{
    free(members);
    free(rooms);
    members = calloc((size_t)most_members, sizeof *members);
    rooms = calloc((size_t)most_rooms, sizeof *rooms);
    member_count = 0;
    room_count = most_rooms;
    text_size = (size_t)size;
    before_size = (size_t)before;
    behind_size = (size_t)behind;
    memset(filler, 'x', sizeof filler);
    failure[0] = 0;
    running = times_taken = 0;
    delivered = completed = twice = late = given_up = probes_heard = 0;
    load_poller = epoll_create1(EPOLL_CLOEXEC);
    return members && rooms && load_poller >= 0;
}

/* What a publisher of the room sends around a text. */
void
load_room(int room, const char *before, int before_length, const char *behind, int behind_length)
{
    rooms[room].before_size = (size_t)before_length;
    rooms[room].behind_size = (size_t)behind_length;
    memcpy(rooms[room].before, before, (size_t)before_length);
    memcpy(rooms[room].behind, behind, (size_t)behind_length);
}

static void
send_frame(int member, int opcode, const char *data, size_t size)
{
    static uint32_t key = 0x5bd1e995;
    unsigned char frame[PART + 8], *to = frame;
    size_t i;

    key = key * 1664525 + 1013904223;
    *to++ = (unsigned char)(0x80 | opcode);
    if (size < 126) {
        *to++ = (unsigned char)(0x80 | size);
    } else {
        *to++ = 0x80 | 126;
        *to++ = (unsigned char)(size >> 8);
        *to++ = (unsigned char)size;
    }
    memcpy(to, &key, 4);
    for (i = 0; i < size; i++) {
        to[4 + i] = (unsigned char)data[i] ^ to[i & 3];
    }
    size += (size_t)(to - frame) + 4;
    if (send(members[member].fd, frame, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size) {
        fail("a connection takes nothing any more", member);
    }
}

static void
say(struct room *room, int publisher, char mark, uint32_t number)
{
    char data[PART], *to = data;

    memcpy(to, room->before, room->before_size);
    to += room->before_size;
    sprintf(to, "%c%d%09u", mark, publisher, number);
    memcpy(to + MARK, filler, text_size - MARK);
    to += text_size;
    memcpy(to, room->behind, room->behind_size);
    to += room->behind_size;
    send_frame(room->publisher[publisher], 1, data, (size_t)(to - data));
}

/* Have the next of a room's publishers say something. */
static void
publish(struct room *room, double at)
{
    uint32_t number = room->said++;
    struct flight *flight = &room->flights[number % RING];

    flight->since = at;
    flight->number = number;
    flight->left = room->members;
    flight->waited_for = 1;
    room->under_way++;
    say(room, (int)(number % (uint32_t)room->publishers), '#',
        number / (uint32_t)room->publishers);
}

static void
go_on(struct room *room, double at)
{
    int i;

    if (!running) {
        return;
    }
    if (burst == 0) {
        publish(room, at);
    } else if (room->under_way == 0) {
        for (i = 0; i < burst; i++) {
            publish(room, at);
        }
    }
}

static void
arrived(struct room *room, uint32_t number)
{
    struct flight *flight = &room->flights[number % RING];
    double at;

    if (flight->number != number || --flight->left != 0) {
        return;
    }
    at = now();
    completed++;
    if (times_taken < TIMES) {
        times[times_taken++] = at - flight->since;
    }
    if (flight->waited_for) {
        flight->waited_for = 0;
        room->under_way--;
        go_on(room, at);
    }
}

/* Count a message, once: is it the next one of its publisher, one of before, or there already? */
static void
take(int index, int publisher, uint32_t number)
{
    struct member *member = &members[index];
    struct room *room = &rooms[member->room];
    uint32_t ahead = number - member->next[publisher], behind;

    if (publisher >= room->publishers) {
        fail("a message from nobody", index);
        return;
    }
    if (number >= member->next[publisher]) {
        uint64_t seen = member->seen[publisher];
        member->seen[publisher] = (ahead >= 63 ? 0 : seen << (ahead + 1)) | 1;
        member->next[publisher] = number + 1;
    } else {
        behind = member->next[publisher] - 1 - number;
        if (behind >= 64 || member->seen[publisher] >> behind & 1) {
            twice++;
            return;
        }
        member->seen[publisher] |= (uint64_t)1 << behind;
        late++;
    }
    delivered++;
    arrived(room, number * (uint32_t)room->publishers + (uint32_t)publisher);
}

static void
take_text(int index, const unsigned char *data, size_t size)
{
    const unsigned char *text = data + before_size;
    uint32_t number = 0;
    int i, publisher;

    if (size != before_size + text_size + behind_size || (text[0] != '#' && text[0] != '?')) {
        if (size == 1 && data[0] == '2' && before_size > 0) {
            send_frame(index, 1, "3", 1); /* Engine.IO's ping and pong */
        } else {
            fail("an unexpected message", index);
        }
        return;
    }
    publisher = text[1] - '0';
    for (i = 2; i < MARK; i++) {
        number = number * 10 + (uint32_t)(text[i] - '0');
    }
    if (publisher < 0 || publisher >= PUBLISHERS
        || memcmp(text + MARK, filler, text_size - MARK) != 0) {
        fail("a spoilt message", index);
    } else if (text[0] == '?') {
        members[index].heard |= 1 << publisher;
        probes_heard++;
    } else {
        take(index, publisher, number);
    }
}

static void
take_frame(int index, int first, const unsigned char *data, size_t size)
{
    if (first == 0x81) {
        take_text(index, data, size);
    } else if (first == 0x89) {
        send_frame(index, 0xa, (const char *)data, size);
    } else if (first == 0x88) {
        fail("the server closed", index);
    } else if (first != 0x8a) {
        fail("an unexpected frame", index);
    }
}

/* Take all whole frames.

   Returns how many octets they had. */
static size_t
take_frames(int index, const unsigned char *data, size_t size)
{
    size_t at = 0, header, length;

    while (size - at >= 2) {
        header = 2;
        length = data[at + 1];
        if (length == 126) {
            if (size - at < 4) {
                break;
            }
            header = 4;
            length = (size_t)data[at + 2] << 8 | data[at + 3];
        } else if (length > 126) {
            fail("a frame of more than 64 KiB, or masked", index);
            return size;
        }
        if (size - at < header + length) {
            break;
        }
        take_frame(index, data[at], data + at + header, length);
        at += header + length;
    }
    return at;
}

static void
feed(int index, const unsigned char *data, size_t size)
{
    struct member *member = &members[index];
    size_t taken, more;

    while (member->have > 0 && size > 0) {
        /* Fill it up; what then is too much of it is taken from data again. */
        more = PART - (size_t)member->have < size ? PART - (size_t)member->have : size;
        memcpy(member->part + member->have, data, more);
        taken = take_frames(index, member->part, (size_t)member->have + more);
        if (taken == 0) {
            member->have += (int)more;
            if (member->have == PART) {
                fail("a frame that is too large", index);
                member->have = 0;
            }
            return;
        }
        data += taken - (size_t)member->have;
        size -= taken - (size_t)member->have;
        member->have = 0;
    }
    taken = take_frames(index, data, size);
    if (size - taken > PART) {
        fail("a frame that is too large", index);
        return;
    }
    memcpy(member->part, data + taken, size - taken);
    member->have = (int)(size - taken);
}

/* Take over a connection, with what it has read after its handshake. */
void
load_add(int fd, int room, int publishes, const char *data, int size)
{
    int index = member_count++;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = index};

    members[index].fd = fd;
    members[index].room = room;
    rooms[room].members++;
    if (publishes) {
        rooms[room].publisher[rooms[room].publishers++] = index;
    }
    epoll_ctl(load_poller, EPOLL_CTL_ADD, fd, &event);
    feed(index, (const unsigned char *)data, (size_t)size);
}

/* Return how many members have not yet heard all of their room's publishers. */
int
load_deaf(void)
{
    int i, deaf = 0;

    for (i = 0; i < room_count; i++) {
        rooms[i].heard = -1;
    }
    for (i = 0; i < member_count; i++) {
        struct room *room = &rooms[members[i].room];
        deaf += members[i].heard != (1 << room->publishers) - 1;
        room->heard &= members[i].heard;
    }
    return deaf;
}

/* After load_deaf(): have those whom not all have heard say something that is not counted. */
void
load_probe(void)
{
    int i, j;

    for (i = 0; i < room_count; i++) {
        for (j = 0; j < rooms[i].publishers; j++) {
            if (!(rooms[i].heard >> j & 1)) {
                say(&rooms[i], j, '?', 0);
            }
        }
    }
}

/* Begin: so many messages under way in each room, or bursts of so many. */
void
load_start(int depth, int new_burst)
{
    int i, j;

    burst = new_burst;
    running = 1;
    last_look = now();
    for (i = 0; i < room_count; i++) {
        for (j = 0; j < (burst ? 1 : depth); j++) {
            go_on(&rooms[i], now());
        }
    }
}

void
load_stop(void)
{
    running = 0;
}

void
load_forget_times(void)
{
    times_taken = 0;
}

/* Give up messages that have not reached all for long, so that others are said instead. */
static void
give_up(double at)
{
    int i, j;

    for (i = 0; i < room_count; i++) {
        for (j = 0; j < RING; j++) {
            struct flight *flight = &rooms[i].flights[j];
            if (flight->waited_for && at - flight->since > PATIENCE) {
                flight->waited_for = 0;
                rooms[i].under_way--;
                given_up++;
                go_on(&rooms[i], at);
            }
        }
    }
}

/* Read for so many seconds, or until a failure. */
void
load_run(double seconds)
{
    struct epoll_event events[EVENTS];
    double at = now(), end = at + seconds;
    int i, number;

    while (!failure[0] && at < end) {
        number = epoll_wait(load_poller, events, EVENTS, (int)((end - at) * 1000) + 1);
        for (i = 0; i < number; i++) {
            int index = events[i].data.fd;
            ssize_t got = recv(members[index].fd, input, INPUT, MSG_DONTWAIT);
            if (got > 0) {
                feed(index, input, (size_t)got);
            } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
                fail("the server closed a connection", index);
            }
        }
        at = now();
        if (at - last_look > 1) {
            last_look = at;
            give_up(at);
        }
    }
}

/* Return how many deliveries there ought to have been. */
uint64_t
load_expected(void)
{
    uint64_t expected = 0;
    int i;

    for (i = 0; i < room_count; i++) {
        expected += (uint64_t)rooms[i].said * (uint64_t)rooms[i].members;
    }
    return expected;
}

uint64_t load_delivered(void) { return delivered; }
uint64_t load_completed(void) { return completed; }
uint64_t load_twice(void) { return twice; }
uint64_t load_late(void) { return late; }
uint64_t load_given_up(void) { return given_up; }
uint64_t load_heard(void) { return probes_heard; }
int load_times(void) { return times_taken; }
const double *load_time(void) { return times; }
const char *load_failure(void) { return failure; }
