/* The ceiling: what nginx can get out of a FastCGI responder that does nothing. It parses nothing: whatever a read
   brings counts as one request, and the answer that was built beforehand goes out in one write. One process, one
   thread, epoll. ANSWER is in answer.h, which the bench writes: the bytes of webpresence's own answer.

       ceiling SOCKET */

#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "answer.h"

#define LENGTH sizeof ANSWER

int main(int argc, char **argv) {
    static unsigned char out[8 + LENGTH + 16] = {1, 6, 0, 1, LENGTH >> 8, LENGTH & 255};
    static const unsigned char end[16] = {1, 3, 0, 1, 0, 8};
    static char in[65536];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), poll = epoll_create1(0);

    if (argc != 2)
        return 2;
    /* A visitor who has gone is no reason to end. */
    signal(SIGPIPE, SIG_IGN);
    memcpy(out + 8, ANSWER, LENGTH);
    memcpy(out + 8 + LENGTH, end, sizeof end);
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || chmod(argv[1], 0666) || listen(listener, 1024))
        return 1;
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener}, events[64];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &wanted);
    for (;;) {
        int count = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                wanted.data.fd = accept(listener, 0, 0);
                epoll_ctl(poll, EPOLL_CTL_ADD, wanted.data.fd, &wanted);
            } else if (read(fd, in, sizeof in) <= 0 || write(fd, out, sizeof out) < 0) {
                close(fd);
            }
        }
    }
}
