// Packed attention by a plan, and the head with what the loss asks of it known beforehand. Included by ctorch.h.
#ifndef CTORCH_ATTENTION_H
#define CTORCH_ATTENTION_H

#include "ctorch.h"

#ifdef __cplusplus
extern "C" {
#endif

// How the tokens of a pack see one another, laid out for the kernels once and used by every layer, forward and backward. A segment
// is a run of tokens [start, start+length) that sees itself causally and, whole, every ancestor: segments[4*i..] = {start, length,
// parent segment or -1, 0}; a parent comes before its children. Segments that lie one after another in the order of their depth,
// those of one depth in the order of their parents, need no gathering of queries, keys or values.
typedef struct ct_attention_plan_impl *ct_attention_plan;
// `fixed_backend`: flash attention alone, where the device has others too.
int ct_attention_plan_create(const int32_t *segments, int count, bool fixed_backend, ct_attention_plan *out, ct_message *error);
void ct_attention_plan_free(ct_attention_plan plan);
// Attention over the pack; a window counts along ancestors. q [T,Hq,D], k [T,Hk,D], v [T,Hk,Dv] -> [T,Hq,Dv].
int ct_packed_attention(ct_tensor q, ct_tensor k, ct_tensor v, ct_attention_plan plan, ct_attention attention, CT_RESULT);
// What computes it there: "cudnn", "flash", "segments" or "cpu"; a name that nobody frees.
const char *ct_attention_backend(ct_tensor q, ct_tensor k, ct_tensor v, ct_attention_plan plan, ct_attention attention);

// As ct_token_log_probs, and backward at once: with d loss / d log p and, unless NULL, d loss / d entropy of each row known, both
// float32 [T], *hidden_grad [T,C] gets d loss / d hidden, and the gradient of `weight`, a leaf, is added to where it requires one.
// `chunk` 0: as many rows at a time as suit the device.
int ct_token_loss(ct_tensor hidden, ct_tensor weight, ct_tensor targets, ct_tensor log_prob_grads, ct_tensor entropy_grads_or_null,
                  double temperature, double scale, double soft_cap, int64_t chunk, ct_tensor *log_probs, ct_tensor *entropies,
                  ct_tensor *hidden_grad, ct_message *error);

#ifdef __cplusplus
}
#endif
#endif
