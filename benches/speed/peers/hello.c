/* libfcgi's hello with the bytes of webpresence's own answer (answer.h, which the bench writes). With a socket and a
   number it opens that socket and becomes so many processes, since each serves one connection at a time; without
   them it serves on descriptor 0, as mod_fcgid starts it.

       hello [SOCKET COUNT] */

#include <fcgi_stdio.h>
#include <fcgiapp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "answer.h"

int main(int argc, char **argv) {
    if (argc == 3) {
        int socket = FCGX_OpenSocket(argv[1], 1024);
        if (socket < 0 || chmod(argv[1], 0666) || dup2(socket, 0))
            return 1;
        for (int left = atoi(argv[2]); left > 1 && fork(); left--)
            ;
    }
    while (FCGI_Accept() >= 0)
        fwrite(ANSWER, 1, sizeof ANSWER, stdout);
    return 0;
}
