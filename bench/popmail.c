/*
 * popmail - one session with a POP3 server on this machine, each step of it timed
 *
 *   popmail [-d] [-t max-seconds] port usersfile user step...
 *
 * Talks to 127.0.0.1 and nothing else. usersfile has lines "user password". Logs in, then takes the
 * steps in turn; a command is sent when the reply to the one before is there to its end.
 *
 *   stat      STAT
 *   list      LIST; remembers the sizes
 *   uidl      UIDL
 *   retr      RETR of all messages; retr=N: of the first N. Needs "list" before it
 *   dele=N    DELE of the first N
 *   hold      says "holding" on standard error and waits for the end of standard input
 *   quit      QUIT, and the end of the connection
 *
 * -d  delays ACKs as far as TCP allows (TCP_QUICKACK off); else each piece is acknowledged at once.
 *     Window and segments are the usual ones: with small ones the kernel has more to acknowledge
 *     and delays nothing.
 * -t  ends with an error after this time (300)
 *
 * Prints one JSON object. Seconds of "login" are from sending PASS to its reply, of "stat" from
 * sending PASS to the reply to STAT, the others are those of their steps. Octets of "retr" are
 * those of the messages, without the reply's first line and the dot at its end.
 *
 * What is received is looked at as little as can be, so that the client's work is not measured: no
 * reply of several lines is over before it ends with CRLF.CRLF, and dots at the beginning of lines
 * are doubled, so only the last five octets need be looked at.
 *
 * Exit: 0, or 1 for wrong usage, or 2 if the server refuses, ends, is late, or if the octets of a
 * message are not as many as LIST said, or lines of LIST and UIDL not as many as STAT said.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WORD 128
#define PIECE (256 * 1024) /* octets read at a time */
#define END "\r\n.\r\n"
#define END_LENGTH 5

struct reply {
    char *text; /* kept whole if `keep`, else only the last piece; NUL at its end */
    size_t room, filled;
    unsigned long long total; /* octets */
    size_t first_line; /* octets, with its CRLF */
    char last[END_LENGTH];
    int keep;
};

static int fd = -1, delays_acks;
static char password[WORD];
static struct reply kept = {.keep = 1}, passing;
static unsigned long long messages, *sizes, sizes_known;
static const char *doing = "connect";
static const char *between = "{";

static void die(int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "popmail: %s: ", doing);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(status);
}

static void too_late(int signal) {
    static const char text[] = "popmail: no end in time\n";
    (void)signal;
    (void)!write(2, text, sizeof text - 1);
    _exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void print_seconds(const char *name, double began) {
    printf("%s\"%s\": %.6f", between, name, now() - began);
    between = ", ";
}

static void print_count(const char *name, unsigned long long value) {
    printf("%s\"%s\": %llu", between, name, value);
    between = ", ";
}

/* -------- the connection -------- */

static void set(int level, int option, int value) {
    if (setsockopt(fd, level, option, &value, sizeof value) < 0)
        die(2, "setsockopt: %s", strerror(errno));
}

static void connect_to(int port) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die(2, "socket: %s", strerror(errno));
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
        die(2, "%s", strerror(errno));
}

static void send_line(const char *line, size_t length) {
    /* So short a line always fits in the socket's buffer. */
    if (send(fd, line, length, MSG_NOSIGNAL) != (ssize_t)length) die(2, "%s", strerror(errno));
}

static void send_command(const char *verb, const char *word) {
    char line[2 * WORD];
    send_line(line, snprintf(line, sizeof line, word ? "%s %s\r\n" : "%s\r\n", verb, word));
}

static void send_number(const char *verb, unsigned long long number) {
    char line[WORD];
    send_line(line, snprintf(line, sizeof line, "%s %llu\r\n", verb, number));
}

static size_t receive(char *into, size_t room) {
    ssize_t got = recv(fd, into, room, 0);
    if (got < 0) die(2, "%s", strerror(errno));
    /* The kernel changes between the two as it likes, so it is told again and again. */
    set(IPPROTO_TCP, TCP_QUICKACK, !delays_acks);
    return got;
}

/* -------- replies -------- */

static void make_room(struct reply *reply) {
    if (!reply->keep) reply->filled = 0;
    if (reply->room - reply->filled > PIECE) return;
    reply->room = reply->room ? reply->room * 2 : 2 * PIECE;
    reply->text = realloc(reply->text, reply->room);
    if (!reply->text) die(2, "out of memory");
}

static void look_at_first_line(struct reply *reply) {
    char *end = memchr(reply->text, '\n', reply->filled);
    if (!end && reply->total > 2 * WORD) die(2, "reply without an end");
    if (!end) return;
    reply->first_line = end + 1 - reply->text;
    if (strncmp(reply->text, "+OK", 3))
        die(2, "%.*s", (int)(reply->first_line > 2 ? reply->first_line - 2 : 0), reply->text);
}

static void remember_end(struct reply *reply, const char *piece, size_t length) {
    size_t stay = length < END_LENGTH ? END_LENGTH - length : 0;
    size_t come = END_LENGTH - stay;
    memmove(reply->last, reply->last + END_LENGTH - stay, stay);
    memcpy(reply->last + stay, piece + length - come, come);
}

static void begin_reply(struct reply *reply) {
    reply->filled = reply->total = reply->first_line = 0;
    memset(reply->last, 0, END_LENGTH);
}

static void read_piece(struct reply *reply) {
    int keep = reply->keep;
    reply->keep |= !reply->first_line; /* a first line may come in several pieces */
    make_room(reply);
    reply->keep = keep;
    char *piece = reply->text + reply->filled;
    size_t got = receive(piece, PIECE);
    if (!got) die(2, "end of connection after %llu octets of a reply", reply->total);
    piece[got] = 0;
    reply->filled += got;
    reply->total += got;
    remember_end(reply, piece, got);
    if (!reply->first_line) look_at_first_line(reply);
}

static void read_line(struct reply *reply) {
    begin_reply(reply);
    while (!reply->first_line) read_piece(reply);
    if (reply->first_line != reply->total) die(2, "more than one line in reply");
}

static void read_lines(struct reply *reply) {
    begin_reply(reply);
    while (memcmp(reply->last, END, END_LENGTH)) read_piece(reply);
}

static unsigned long long body_octets(const struct reply *reply) {
    return reply->total - reply->first_line - 3;
}

/* -------- steps -------- */

static double log_in(const char *user) {
    double began;
    doing = "greeting";
    read_line(&kept);
    doing = "USER";
    send_command("USER", user);
    read_line(&kept);
    doing = "PASS";
    began = now();
    send_command("PASS", password);
    read_line(&kept);
    print_seconds("login", began);
    return began;
}

static void step_stat(double began) {
    unsigned long long octets;
    send_command("STAT", NULL);
    read_line(&kept);
    print_seconds("stat", began);
    if (sscanf(kept.text, "+OK %llu %llu", &messages, &octets) != 2) die(2, "not an answer");
    print_count("messages", messages);
    print_count("octets", octets);
}

static unsigned long long lines_in(const struct reply *reply) {
    unsigned long long found = 0;
    const char *at = reply->text + reply->first_line, *end = reply->text + reply->filled - 3;
    for (; at < end && (at = memchr(at, '\n', end - at)); at++) found++;
    return found;
}

static void check_lines(void) {
    unsigned long long found = lines_in(&kept);
    if (found != messages) die(2, "%llu lines for %llu messages", found, messages);
}

static void learn_sizes(void) {
    char *at = kept.text + kept.first_line;
    sizes = calloc(messages + 1, sizeof *sizes);
    if (!sizes) die(2, "out of memory");
    for (sizes_known = 0; sizes_known < messages; sizes_known++) {
        if (strtoull(at, &at, 10) != sizes_known + 1 || *at != ' ')
            die(2, "wrong line for message %llu", sizes_known + 1);
        sizes[sizes_known] = strtoull(at, &at, 10);
        if (strncmp(at, "\r\n", 2)) die(2, "wrong line for message %llu", sizes_known + 1);
        at += 2;
    }
}

static void step_list(void) {
    double began = now();
    send_command("LIST", NULL);
    read_lines(&kept);
    print_seconds("list", began);
    check_lines();
    learn_sizes();
}

static void step_uidl(void) {
    double began = now();
    send_command("UIDL", NULL);
    read_lines(&kept);
    print_seconds("uidl", began);
    check_lines();
}

static void step_retr(unsigned long long count) {
    unsigned long long octets = 0;
    double began = now();
    if (count > sizes_known) die(1, "the sizes of %llu messages are known", sizes_known);
    for (unsigned long long number = 1; number <= count; number++) {
        send_number("RETR", number);
        read_lines(&passing);
        if (body_octets(&passing) != sizes[number - 1])
            die(2, "%llu octets of message %llu, LIST says %llu", body_octets(&passing), number,
                sizes[number - 1]);
        octets += sizes[number - 1];
    }
    print_seconds("retr", began);
    print_count("retr_octets", octets);
}

static void step_dele(unsigned long long count) {
    double began = now();
    for (unsigned long long number = 1; number <= count; number++) {
        send_number("DELE", number);
        read_line(&kept);
    }
    print_seconds("dele", began);
}

static void step_hold(void) {
    char ignored[256];
    fprintf(stderr, "holding\n");
    while (read(0, ignored, sizeof ignored) > 0) {
    }
}

static void step_quit(void) {
    double began = now();
    send_command("QUIT", NULL);
    read_line(&kept);
    if (receive(kept.text, PIECE)) die(2, "something after the reply");
    print_seconds("quit", began);
}

static void take_step(const char *step, double began) {
    const char *number = strchr(step, '=');
    unsigned long long count = number ? strtoull(number + 1, NULL, 10) : messages;

    doing = step;
    if (!strcmp(step, "stat"))
        step_stat(began);
    else if (!strcmp(step, "list"))
        step_list();
    else if (!strcmp(step, "uidl"))
        step_uidl();
    else if (!strncmp(step, "retr", 4))
        step_retr(count);
    else if (!strncmp(step, "dele=", 5))
        step_dele(count);
    else if (!strcmp(step, "hold"))
        step_hold();
    else if (!strcmp(step, "quit"))
        step_quit();
    else
        die(1, "no such step");
}

/* -------- start -------- */

static void read_password(const char *path, const char *user) {
    FILE *file = fopen(path, "r");
    char name[WORD];
    if (!file) die(1, "cannot open %s: %s", path, strerror(errno));
    while (fscanf(file, "%127s %127s", name, password) == 2) {
        if (strcmp(name, user)) continue;
        fclose(file);
        return;
    }
    die(1, "%s: no user %s", path, user);
}

int main(int argc, char **argv) {
    int option, seconds = 300;
    while ((option = getopt(argc, argv, "dt:")) != -1) {
        if (option == 'd')
            delays_acks = 1;
        else if (option == 't')
            seconds = atoi(optarg);
        else
            return 1;
    }
    if (argc - optind < 4 || seconds < 1)
        die(1, "usage: popmail [-d] [-t max-seconds] port usersfile user step...");
    read_password(argv[optind + 1], argv[optind + 2]);
    signal(SIGALRM, too_late);
    alarm(seconds);
    connect_to(atoi(argv[optind]));
    double began = log_in(argv[optind + 2]);
    for (int i = optind + 3; i < argc; i++) take_step(argv[i], began);
    puts("}");
    return 0;
}
