// What ranks show one another, deadlines, and groups over NCCL. See ctorch.h for the conventions.
#ifndef CTORCH_RANKS_H
#define CTORCH_RANKS_H

#include "ctorch_collectives.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ct_board_impl *ct_board;
typedef struct ct_watch_impl *ct_watch;

// ---- the board: a place for each rank, in memory that all can read whatever becomes of a process
// `path` NULL: for the threads of this process. Else a file that one rank creates and the others open.
int ct_board_create(const char *path_or_null, int ranks, ct_board *out, ct_message *error);
int ct_board_open(const char *path, int ranks, ct_board *out, ct_message *error);
void ct_board_free(ct_board board);

// Ranks on several hosts: each host has a board with a place for every rank of all. To be said before ranks start: the address of a
// rank's host, and whether that is another one.
int ct_board_place(ct_board board, int rank, const char *node, bool elsewhere, ct_message *error);
// What other hosts must know of a rank of this one, to be taken there. At most `CT_BOARD_REPORT` bytes.
#define CT_BOARD_REPORT 4096
int ct_board_report(ct_board board, int rank, uint8_t *out, size_t capacity, size_t *count, ct_message *error);
int ct_board_take(ct_board board, int rank, const uint8_t *bytes, size_t count, ct_message *error);
// A rank of another host is gone without a last word; or nothing can be heard of it, through no fault of its own.
int ct_board_lose(ct_board board, int rank, ct_message *error);
int ct_board_keep(ct_board board, int rank, ct_message *error);
// Of a rank: whether it works and has shown life within the time (or has not started); whether it has said that it ends.
int ct_board_facts(ct_board board, int rank, int64_t within_ms, bool *is_alive, bool *has_ended, ct_message *error);

// ---- the watch: publishes what this rank does, and sees who is late or dead
// Where trouble was found, the groups end with an error; a process that has not ended `exit_after_ms` later is ended with
// `exit_code` (0 ms: never).
int ct_watch_start(ct_board board, int rank, int64_t deadline_ms, int64_t exit_after_ms, int exit_code, ct_watch *out,
                   ct_message *error);
void ct_watch_progress(ct_watch watch, int64_t step, const char *phase, const char *unit);
// Something was done that no operation shows.
void ct_watch_tick(ct_watch watch);
// Fails with what went wrong, if anything has.
int ct_watch_check(ct_watch watch, ct_message *error);
// This rank ends: well, or for a reason.
void ct_watch_leave(ct_watch watch, const char *failure_or_null);
// What another rank did last.
int ct_watch_describe(ct_watch watch, int rank, ct_message *out, ct_message *error);
// Milliseconds since this rank did anything; 0 while an operation of its own is under way.
int64_t ct_watch_idle_ms(ct_watch watch);
void ct_watch_free(ct_watch watch);

// From now on the group's operations are announced. `ranks` are the group's in the board's numbers. A patient group's operations have
// no deadline: a rank may be idle in them, until another one dies.
int ct_group_watch(ct_group group, ct_watch watch, const char *name, const int32_t *ranks, bool patient, ct_message *error);

// ---- NCCL
// Opens libnccl, which comes with libtorch's CUDA half; `version` is such as 22809.
int ct_nccl_version(int *version, ct_message *error);
int ct_group_nccl(ct_store store, const char *name, int device_index, int rank, int size, ct_group *out, ct_message *error);

#ifdef __cplusplus
}
#endif
#endif
