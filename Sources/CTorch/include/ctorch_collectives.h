// Process groups: operations that several ranks do together. See ctorch.h for the conventions.
#ifndef CTORCH_COLLECTIVES_H
#define CTORCH_COLLECTIVES_H

#include "ctorch.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ct_store_impl *ct_store;
typedef struct ct_group_impl *ct_group;
typedef struct ct_pending_impl *ct_pending;
typedef enum { CT_MERGE_SUM, CT_MERGE_MEAN, CT_MERGE_MAX, CT_MERGE_MIN } ct_merge;

// ---- where ranks find one another: keys and values
// For the threads of one process.
int ct_store_local(ct_store *out, ct_message *error);
// Rank 0 listens (`port` 0: any; ct_store_port says which), at `socket` where that is not negative; the others connect. `prefix` goes
// before every key.
int ct_store_tcp(const char *host, int port, bool listens, int socket, const char *prefix, int64_t timeout_ms, ct_store *out,
                 ct_message *error);
int ct_store_port(ct_store store);
int ct_store_set(ct_store store, const char *key, const void *bytes, size_t count, ct_message *error);
// Waits for the key, as long as the store's timeout; `*out` is owned (free it with ct_string_free).
int ct_store_get(ct_store store, const char *key, char **out, size_t *count, ct_message *error);
int ct_store_has(ct_store store, const char *key, bool *out, ct_message *error);
int ct_store_add(ct_store store, const char *key, int64_t amount, int64_t *out, ct_message *error);
void ct_store_free(ct_store store);

// ---- groups; `name` must be the same on all ranks of a group, and new for each group of a store
// `timeout_ms` to connect; `wait_ms` for each operation, 0: the same.
int ct_group_gloo(ct_store store, const char *name, const char *host, int rank, int size, int64_t timeout_ms, int64_t wait_ms,
                  ct_group *out, ct_message *error);
int ct_group_rank(ct_group group);
int ct_group_size(ct_group group);
void ct_group_free(ct_group group);

int ct_group_all_reduce(ct_group group, const ct_tensor *tensors, int count, ct_merge reduction, ct_pending *out,
                        ct_message *error);
int ct_group_all_gather(ct_group group, const ct_tensor *inputs, const ct_tensor *outputs, int count, ct_pending *out,
                        ct_message *error);
int ct_group_reduce_scatter(ct_group group, const ct_tensor *inputs, const ct_tensor *outputs, int count, ct_merge reduction,
                            ct_pending *out, ct_message *error);
int ct_group_broadcast(ct_group group, const ct_tensor *tensors, int count, int root, ct_pending *out, ct_message *error);
int ct_group_all_to_all(ct_group group, ct_tensor input, ct_tensor output, const int64_t *input_rows, const int64_t *output_rows,
                        ct_pending *out, ct_message *error);
int ct_group_exchange(ct_group group, const ct_tensor *sends, const int32_t *send_peers, int send_count, const ct_tensor *receives,
                      const int32_t *receive_peers, int receive_count, ct_pending *out, ct_message *error);
int ct_group_barrier(ct_group group, ct_message *error);
int ct_group_abort(ct_group group, ct_message *error);

int ct_pending_wait(ct_pending pending, ct_message *error);
int ct_pending_done(ct_pending pending, bool *out, ct_message *error);
void ct_pending_free(ct_pending pending);

#ifdef __cplusplus
}
#endif
#endif
