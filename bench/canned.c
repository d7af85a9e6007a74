/*
 * canned - answer POP3 lines with canned replies, as fast as possible
 *
 *   canned port
 *
 * Serves on 127.0.0.1 until it is killed. Knows just enough to show how many sessions a second
 * popload itself can drive: one command in one packet, no mail, no memory. Every password is right.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int epoll;

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void say(int fd, const char *text) {
    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static int listen_on_loopback(int port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0 || listen(fd, SOMAXCONN) < 0) {
        perror("canned: cannot listen");
        exit(1);
    }
    return fd;
}

static void greet(int fd) {
    int on = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(fd);
    say(fd, "+OK Hello there.\r\n");
}

static void answer(int fd) {
    char line[512];
    ssize_t length = read(fd, line, sizeof line);
    if (length <= 0 || line[0] == 'Q') {
        if (length > 0) say(fd, "+OK Bye-bye.\r\n");
        close(fd);
    } else {
        say(fd, line[0] == 'S' ? "+OK 3 3000\r\n" : "+OK\r\n");
    }
}

int main(int argc, char **argv) {
    struct epoll_event events[256];
    int listener = listen_on_loopback(argc == 2 ? atoi(argv[1]) : 0);

    epoll = epoll_create1(0);
    watch(listener);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                greet(accept4(listener, NULL, NULL, SOCK_NONBLOCK));
            else
                answer(events[i].data.fd);
        }
    }
}
