// What Swift cannot call itself.
#ifndef FLEDGE_PROCESS_H
#define FLEDGE_PROCESS_H

// The kernel kills this process when the thread that started it ends. 0, or -1 with errno.
int fledge_die_with_parent(void);

// A pipe that programs started later do not inherit, whose reading end never blocks. 0, or -1 with errno.
int fledge_pipe(int ends[2]);

#endif
