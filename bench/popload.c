/*
 * popload - load a POP3 server on this machine with short sessions and time them
 *
 *   popload [-s new|resumed|handshake] [-a addresses] [-c concurrency] [-n sessions]
 *           [-t max-seconds] host port usersfile
 *   popload -i | -g [-s new] [-a addresses] [-c concurrency] host port usersfile
 *
 * host is 127.0.0.1 or ::1, nothing else. usersfile has lines "user password"; sessions take them
 * in turn. A session is: connect, greeting, USER, PASS, STAT, QUIT, end of file, each step waiting
 * for the reply to the one before. `concurrency` of them (1) are open at a time, until `sessions`
 * (1000) are over or `max-seconds` (10) have passed; those then open are still finished.
 * A session that takes more than 10 s is an error.
 *
 * Prints one JSON object: times are those of sessions without error, greeting_* from connect to
 * the greeting's last byte.
 *
 * -s: over TLS, from the begin of the connection, whatever the certificate: with a handshake of its
 * own for each session; or resuming the session that the server gave this slot last (full_handshakes
 * counts those that it would not); or nothing but the handshake, and the connection is closed.
 *
 * -i (idle): logs in `concurrency` sessions, prints "ready", keeps them open until standard input
 * ends, then quits them. -g: the same, but they say nothing behind the greeting. RAMP of them at a time
 * are on their way in or out. One that the server ends meanwhile is an error.
 *
 * -a: sessions come from so many addresses, 127.0.0.1 and those that follow (1), in turn: a server
 * may limit what it takes from one, and one has some 28,000 ports.
 *
 * Exit: 0, or 1 for wrong usage, or 2 if a session failed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SESSION_SECONDS 10.0
#define MOST_AT_ONCE 20000
#define MOST_ADDRESSES 250
#define RAMP 64
#define MOST_SECONDS 600

enum stage { CONNECT, HANDSHAKE, GREETING, USER, PASS, STAT, IDLE, QUIT, CLOSE, STAGES };
static const char *const stage_name[STAGES] = {"connect", "handshake", "greeting", "user", "pass",
                                               "stat",    "idle",      "quit",     "close"};
enum tls { NO_TLS, NEW, RESUMED, HANDSHAKE_ONLY };

struct account {
    char name[128], password[128];
};

struct session {
    int fd; /* -1: this slot is free */
    SSL *ssl; /* NULL without TLS */
    SSL_SESSION *ticket; /* to resume next time */
    enum stage stage; /* whose reply is awaited */
    const struct account *account;
    char reply[520]; /* RFC 1939 3: up to 512 octets */
    size_t filled;
    double started, greeted, deadline;
};

struct times {
    double *ms;
    size_t count, room;
};

static int at_once = 1, sessions_wanted = 1000, addresses = 1, idle_mode, silent, holding;
static double max_seconds = 10;
static struct sockaddr_storage server;
static socklen_t server_length;
static struct account *accounts;
static size_t account_count;

static struct session *slots;
static enum tls tls;
static SSL_CTX *context;
static int epoll, begun, open_now, idle_now, finished, errors, timeouts, full_handshakes;
static int errors_in[STAGES];
static char first_bad[600];
static struct times whole, greeting;
static double run_started, last_finish;

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("popload: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* -------- results -------- */

static void add_time(struct times *times, double seconds) {
    if (times->count == times->room) {
        times->room = times->room ? times->room * 2 : 4096;
        times->ms = realloc(times->ms, times->room * sizeof *times->ms);
        if (!times->ms) die("out of memory");
    }
    times->ms[times->count++] = seconds * 1000;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(struct times *times, int percent) {
    if (!times->count) return 0;
    qsort(times->ms, times->count, sizeof *times->ms, by_size);
    return times->ms[(times->count * percent + 99) / 100 - 1]; /* nearest rank */
}

static void print_json_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        unsigned char c = *text;
        if (c < 0x20 || c > 0x7e || c == '"' || c == '\\')
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static double own_cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec +
           (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void print_results(void) {
    double seconds = last_finish - run_started;
    printf("{\"sessions\": %d, \"errors\": %d, \"timeouts\": %d, \"errors_by_stage\": {", finished,
           errors, timeouts);
    for (int stage = 0; stage < STAGES; stage++)
        printf("%s\"%s\": %d", stage ? ", " : "", stage_name[stage], errors_in[stage]);
    printf("}, \"first_bad_reply\": ");
    print_json_string(first_bad);
    printf(", \"seconds\": %.4f, \"sessions_per_s\": %.2f", seconds,
           seconds > 0 ? whole.count / seconds : 0);
    printf(", \"p50_ms\": %.3f, \"p99_ms\": %.3f", percentile(&whole, 50), percentile(&whole, 99));
    printf(", \"greeting_p50_ms\": %.3f, \"greeting_p99_ms\": %.3f", percentile(&greeting, 50),
           percentile(&greeting, 99));
    printf(", \"full_handshakes\": %d, \"cpu_seconds\": %.4f}\n", full_handshakes, own_cpu());
}

/* -------- one session -------- */

static void end_session(struct session *s) {
    if (s->ssl) {
        SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* it stays resumable */
        SSL_free(s->ssl);
        s->ssl = NULL;
    }
    if (s->fd >= 0) close(s->fd);
    if (s->stage == IDLE) idle_now--;
    s->fd = -1;
    open_now--;
    finished++;
    last_finish = now();
}

static void succeed(struct session *s) {
    end_session(s);
    add_time(&whole, last_finish - s->started);
    add_time(&greeting, s->greeted - s->started);
}

static void fail(struct session *s, const char *why) {
    if (!errors++)
        snprintf(first_bad, sizeof first_bad, "%s: %s", stage_name[s->stage], why);
    errors_in[s->stage]++;
    end_session(s);
}

static void send_command(struct session *s, enum stage stage, const char *verb, const char *word) {
    char line[200];
    int length = snprintf(line, sizeof line, word ? "%s %s\r\n" : "%s\r\n", verb, word);
    s->stage = stage;
    s->filled = 0;
    /* So short a line always fits in the socket's buffer. */
    int sent = s->ssl ? SSL_write(s->ssl, line, length) : send(s->fd, line, length, MSG_NOSIGNAL);
    if (sent != length) fail(s, strerror(errno));
}

static void hold(struct session *s) {
    s->stage = IDLE;
    s->filled = 0;
    idle_now++;
}

static void go_on(struct session *s) {
    switch (s->stage) {
    case CONNECT:
    case HANDSHAKE:
    case GREETING:
        s->greeted = now();
        if (silent && holding)
            hold(s);
        else
            send_command(s, USER, "USER", s->account->name);
        break;
    case USER:
        send_command(s, PASS, "PASS", s->account->password);
        break;
    case PASS:
        send_command(s, STAT, "STAT", NULL);
        break;
    case STAT:
        if (holding)
            hold(s);
        else
            send_command(s, QUIT, "QUIT", NULL);
        break;
    case QUIT:
        s->stage = CLOSE;
        s->filled = 0;
        break;
    default:
        fail(s, "reply to no question");
    }
}

static void take_reply(struct session *s) {
    char *end = memchr(s->reply, '\n', s->filled);
    if (!end) {
        if (s->filled == sizeof s->reply - 1) fail(s, "reply without an end");
        return;
    }
    int more_follows = end != s->reply + s->filled - 1;
    while (end > s->reply && end[-1] == '\r') end--;
    *end = 0;
    if (strncmp(s->reply, "+OK", 3))
        fail(s, s->reply);
    else if (more_follows)
        fail(s, "more than one line in reply");
    else
        go_on(s);
}

/* -------- TLS -------- */

static void watch(struct session *s, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = s};
    epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
}

static int keep_ticket(SSL *ssl, SSL_SESSION *ticket) {
    struct session *s = SSL_get_app_data(ssl);
    if (tls != RESUMED) return 0;
    SSL_SESSION_free(s->ticket);
    s->ticket = ticket;
    return 1; /* it is ours to free */
}

static void shake_hands(struct session *s) {
    int done = SSL_connect(s->ssl), why = SSL_get_error(s->ssl, done);
    if (done == 1) {
        full_handshakes += !SSL_session_reused(s->ssl);
        s->stage = GREETING;
        watch(s, EPOLLIN);
        if (tls == HANDSHAKE_ONLY) {
            s->greeted = now();
            succeed(s);
        }
    } else if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
        watch(s, why == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT);
    } else {
        fail(s, "no handshake");
    }
}

/* What has come: a count; 0 at the end; -1 with errno. */
static ssize_t receive(struct session *s, char *place, size_t room) {
    if (!s->ssl) return read(s->fd, place, room);
    int got = SSL_read(s->ssl, place, room), why = SSL_get_error(s->ssl, got);
    if (got > 0) return got;
    errno = why == SSL_ERROR_WANT_READ ? EAGAIN : EPROTO;
    return why == SSL_ERROR_ZERO_RETURN || (s->stage == CLOSE && errno != EAGAIN) ? 0 : -1;
}

static void begin_tls(struct session *s) {
    s->stage = HANDSHAKE;
    s->ssl = SSL_new(context);
    if (!s->ssl || !SSL_set_fd(s->ssl, s->fd)) die("out of memory");
    SSL_set_app_data(s->ssl, s);
    if (s->ticket) SSL_set_session(s->ssl, s->ticket);
    watch(s, EPOLLOUT); /* when it is connected */
}

static void set_tls(const char *how) {
    static const char *const names[] = {"", "new", "resumed", "handshake"};
    for (tls = NEW; tls <= HANDSHAKE_ONLY; tls++)
        if (!strcmp(how, names[tls])) break;
    if (tls > HANDSHAKE_ONLY) die("-s must be new, resumed or handshake");
    context = SSL_CTX_new(TLS_client_method());
    if (!context) die("no TLS");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_ticket);
}

/* -------- a session's descriptor is ready -------- */

static void read_some(struct session *s) {
    if (s->stage == HANDSHAKE) {
        shake_hands(s);
        return;
    }
    ssize_t got = receive(s, s->reply + s->filled, sizeof s->reply - 1 - s->filled);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got >= 0 && s->stage == CONNECT) s->stage = GREETING;
    if (got < 0) {
        fail(s, strerror(errno));
    } else if (got > 0) {
        s->filled += got;
        take_reply(s);
        if (s->fd >= 0 && s->ssl && SSL_pending(s->ssl)) read_some(s);
    } else if (s->stage == CLOSE) {
        succeed(s);
    } else {
        s->reply[s->filled] = 0;
        fail(s, s->filled ? s->reply : "end of file");
    }
}

/* One of the addresses; the port is chosen when it connects, so that others may have it too. */
static int take_address(struct session *s) {
    int on = 1;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + begun % addresses);
    if (setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0) return -1;
    return bind(s->fd, (struct sockaddr *)&from, sizeof from);
}

static void begin_session(struct session *s) {
    int on = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};

    s->account = &accounts[begun++ % account_count];
    s->stage = CONNECT;
    s->filled = 0;
    s->started = now();
    s->deadline = s->started + SESSION_SECONDS;
    s->fd = socket(server.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    open_now++;
    if (s->fd < 0 || setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        (addresses > 1 && take_address(s) < 0) ||
        (connect(s->fd, (struct sockaddr *)&server, server_length) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &event) < 0)
        fail(s, strerror(errno));
    else if (tls)
        begin_tls(s);
}

/* -------- all of them -------- */

static int may_begin(double at) {
    return begun < sessions_wanted && (idle_mode || at - run_started < max_seconds);
}

static int room_for_one_more(void) {
    return open_now < at_once && (!idle_mode || open_now - idle_now < RAMP);
}

static void fill_slots(void) {
    double at = now();
    for (int i = 0; i < at_once && room_for_one_more() && may_begin(at); i++)
        if (slots[i].fd < 0) begin_session(&slots[i]);
}

static void expire_late_sessions(void) {
    static double looked;
    double at = now();
    if (at - looked < 0.1) return;
    looked = at;
    for (int i = 0; i < at_once; i++) {
        struct session *s = &slots[i];
        if (s->fd < 0 || s->stage == IDLE || at < s->deadline) continue;
        timeouts++;
        fail(s, "no reply in time");
    }
}

static void release_idle_sessions(void) {
    for (int i = 0; i < at_once && open_now - idle_now < RAMP; i++) {
        struct session *s = &slots[i];
        if (s->fd < 0 || s->stage != IDLE) continue;
        idle_now--;
        s->deadline = now() + SESSION_SECONDS;
        send_command(s, QUIT, "QUIT", NULL);
    }
}

static void watch_stdin(void) {
    char ignored[256];
    if (read(0, ignored, sizeof ignored) > 0) return;
    epoll_ctl(epoll, EPOLL_CTL_DEL, 0, NULL);
    holding = 0;
}

static void wait_and_serve(void) {
    struct epoll_event events[256];
    int count = epoll_wait(epoll, events, 256, 100);
    for (int i = 0; i < count; i++) {
        struct session *s = events[i].data.ptr;
        if (!s)
            watch_stdin();
        else if (s->fd >= 0)
            read_some(s);
    }
    expire_late_sessions();
}

static void run(void) {
    int said = 0;
    run_started = last_finish = now();
    while (open_now || may_begin(now())) {
        fill_slots();
        wait_and_serve();
        if (holding && !said && idle_now == at_once) {
            said = puts("ready") >= 0;
            fflush(stdout);
        }
        if (errors) holding = 0;
        if (idle_now && !holding) release_idle_sessions();
    }
}

/* -------- start -------- */

static void read_accounts(const char *path) {
    FILE *file = fopen(path, "r");
    struct account one;
    if (!file) die("cannot open %s: %s", path, strerror(errno));
    while (fscanf(file, "%127s %127s", one.name, one.password) == 2) {
        accounts = realloc(accounts, (account_count + 1) * sizeof *accounts);
        if (!accounts) die("out of memory");
        accounts[account_count++] = one;
    }
    fclose(file);
    if (!account_count) die("%s: no lines \"user password\"", path);
}

static void set_server(const char *host, const char *port_text) {
    struct sockaddr_in *four = (struct sockaddr_in *)&server;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&server;
    int port = atoi(port_text);

    if (port < 1 || port > 65535) die("not a port: %s", port_text);
    if (!strcmp(host, "127.0.0.1")) {
        *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
        four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        server_length = sizeof *four;
    } else if (!strcmp(host, "::1")) {
        *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
        six->sin6_addr = in6addr_loopback;
        server_length = sizeof *six;
    } else {
        die("%s refused: only 127.0.0.1 or ::1 may be loaded", host);
    }
}

static void take_arguments(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "iga:c:n:s:t:")) != -1) {
        if (option == 'i')
            idle_mode = holding = 1;
        else if (option == 'g')
            idle_mode = holding = silent = 1;
        else if (option == 'a')
            addresses = atoi(optarg);
        else if (option == 'c')
            at_once = atoi(optarg);
        else if (option == 'n')
            sessions_wanted = atoi(optarg);
        else if (option == 's')
            set_tls(optarg);
        else if (option == 't')
            max_seconds = atof(optarg);
        else
            exit(1);
    }
    if (argc - optind != 3)
        die("usage: popload [-i | -g] [-s how] [-a addresses] [-c concurrency] [-n sessions] "
            "[-t seconds] host port usersfile");
    if (at_once < 1 || at_once > MOST_AT_ONCE) die("-c must be 1 to %d", MOST_AT_ONCE);
    if (addresses < 1 || addresses > MOST_ADDRESSES) die("-a must be 1 to %d", MOST_ADDRESSES);
    if (sessions_wanted < 1) die("-n must be at least 1");
    if (max_seconds <= 0 || max_seconds > MOST_SECONDS) die("-t must be up to %d", MOST_SECONDS);
    if (idle_mode) sessions_wanted = at_once;
    set_server(argv[optind], argv[optind + 1]);
    if (addresses > 1 && server.ss_family != AF_INET) die("-a needs 127.0.0.1");
    read_accounts(argv[optind + 2]);
}

static void allow_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < (rlim_t)at_once + 10)
        die("%d at once need a limit of open files (ulimit -Hn) above %lu", at_once, limit.rlim_max);
}

int main(int argc, char **argv) {
    struct epoll_event on_stdin = {.events = EPOLLIN, .data.ptr = NULL};

    take_arguments(argc, argv);
    allow_descriptors();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    slots = calloc(at_once, sizeof *slots);
    if (epoll < 0 || !slots) die("cannot start: %s", strerror(errno));
    for (int i = 0; i < at_once; i++) slots[i].fd = -1;
    if (idle_mode && epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &on_stdin) < 0)
        die("-i needs a pipe or a terminal as standard input");
    run();
    print_results();
    return errors ? 2 : 0;
}
