#define _GNU_SOURCE
#include "process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
#include <sys/prctl.h>

int fledge_die_with_parent(void) {
    return prctl(PR_SET_PDEATHSIG, SIGKILL);
}

int fledge_pipe(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    return fcntl(ends[0], F_SETFL, O_NONBLOCK);
}
