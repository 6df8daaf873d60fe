// Layers that keep little for backward, checkpoints of layers, and what they keep. Included by ctorch.h.
#ifndef CTORCH_LAYERS_H
#define CTORCH_LAYERS_H

#include "ctorch.h"

#ifdef __cplusplus
extern "C" {
#endif

// What a checkpointed layer may keep of its first run, each a bit.
enum ct_kept { ct_kept_nothing = 0, ct_kept_attention = 1, ct_kept_query_key_value = 2, ct_kept_gate_up = 4 };

// x [.., K] times weight [N, K] transposed. Where its input is a norm or an activation, backward computes that again; the weight's
// gradient is added where the leaf's lies already. `kept` says what a checkpoint may keep the product as. A result whose value nobody
// reads (a layer that is run again for its gradients) is not computed: all of it is NaN.
int ct_layer_linear(ct_tensor x, ct_tensor weight, ct_tensor bias_or_null, enum ct_kept kept, bool is_read, CT_RESULT);

// As ct_rotary_store_ without pools, with gradients: queries [T, Hq, D], keys and values [T, Hk, D] of heads [T, (Hq + 2 Hk) D]. Where
// gradients are recorded, there are no norms and no checkpoint keeps `heads`, they are views of `heads`, which is overwritten.
int ct_prepare_heads(ct_tensor heads, int query_heads, int kv_heads, int head, ct_tensor cos_or_null, ct_tensor sin_or_null,
                     ct_norm query_norm, ct_norm key_norm, ct_tensor *query, ct_tensor *key, ct_tensor *value, ct_message *error);

// While on, this thread's layers are made of separate operations: what the fused ones are compared with.
void ct_set_unfused(bool on);

// ---- checkpoints
// Where checkpoints put what they keep until backward asks for it: pinned host memory, over a stream of its own.
typedef struct ct_offload_impl *ct_offload;
typedef struct {
    int64_t away_bytes, pinned_bytes, sent_bytes, fetched_bytes; // now; in the pool; since the beginning
} ct_offload_stats;
int ct_offload_create(int device_type, int device_index, ct_offload *out, ct_message *error);
void ct_offload_free(ct_offload offload);
ct_offload_stats ct_offload_statistics(ct_offload offload);
// Gives the pool's free buffers back.
void ct_offload_trim(ct_offload offload);

// Runs body(context, inputs, ...) without recording; when backward reaches it, runs it again with recording and goes on
// through it. The body fills `results` (at most `capacity`) with owned tensors and returns how many, or -1 with *error.
typedef int (*ct_checkpoint_body)(void *context, const ct_tensor *inputs, int count, ct_tensor *results, int capacity,
                                  ct_message *error);
// `kept`: bits of what is not computed again.
int ct_checkpoint(const ct_tensor *inputs, int count, int kept, ct_offload offload_or_null, ct_checkpoint_body body,
                  void (*release)(void *), void *context, ct_tensor *results, int capacity, int *result_count,
                  ct_message *error);
// Whether this thread runs a checkpoint's body again, for its gradients alone.
bool ct_is_second_run(void);
// Whether this thread runs a checkpoint's body: what is kept must not be overwritten.
bool ct_is_checkpointing(void);

// Bytes that `body` allocated on this thread and did not free, and the most that were there at once; on all devices.
int ct_watch_memory(int (*body)(void *context, ct_message *error), void *context, int64_t *left, int64_t *most,
                    ct_message *error);

#ifdef __cplusplus
}
#endif
#endif
