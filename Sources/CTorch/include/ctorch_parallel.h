// Layers whose work several ranks share: collectives with gradients. See ctorch.h for the conventions.
#ifndef CTORCH_PARALLEL_H
#define CTORCH_PARALLEL_H

#include "ctorch_collectives.h"

#ifdef __cplusplus
extern "C" {
#endif

// `n` ranks share T rows in chunks of ceil(T / n), the last ones filled up with zeros.

// x itself; its gradient is the sum of all ranks'.
int ct_parallel_copy(ct_group group, ct_tensor x, CT_RESULT);
// The sum of all ranks' x; each rank's gradient is that of the sum. Where no gradients are recorded the sum is in x's memory.
int ct_parallel_sum(ct_group group, ct_tensor x, CT_RESULT);
// The sum of all ranks' x, of which every rank uses its own copy for something else: gradients are summed too.
int ct_parallel_sum_both(ct_group group, ct_tensor x, CT_RESULT);
// x itself; its gradient is multiplied by `factor`.
int ct_scale_gradient(ct_tensor x, double factor, CT_RESULT);

// All ranks' chunks x [c, ..], the first `total` rows: [total, ..]. The gradient of a chunk is the sum of all ranks' gradients of it
// (`sums`), or, where all ranks have the same, one's own.
int ct_rows_gather(ct_group group, ct_tensor x, int64_t total, bool sums, CT_RESULT);
// This rank's chunk of the sum of all ranks' x [T, ..]; gradients of the chunks are gathered. Not `is_read`: its values are undefined, and
// nothing is sent before backward.
int ct_rows_scatter(ct_group group, ct_tensor x, bool is_read, CT_RESULT);
// This rank's chunk of x [T, ..], which is the same on all ranks; plain slicing, whose gradient is this rank's alone.
int ct_rows_own(ct_group group, ct_tensor x, CT_RESULT);
// All ranks' columns side by side, x [T, w] of chunks of ceil(total / n) columns: [T, total]. Every rank is to compute the same from
// it: the gradient is one's own columns'.
int ct_columns_gather(ct_group group, ct_tensor x, int64_t total, CT_RESULT);
// Sends `input_rows[r]` rows of x to rank r and takes `output_rows[r]` from it; gradients go back the same way.
int ct_rows_exchange(ct_group group, ct_tensor x, const int64_t *input_rows, const int64_t *output_rows, CT_RESULT);

// Ulysses (Jacobs et al. 2023): this rank's tokens of all heads, xs[i] [c, H_i, D_i], become all `total` tokens of this rank's heads,
// outs[i] [total, max(1, H_i / n), D_i], in one all-to-all. Where there are fewer heads than ranks, several ranks get the same one.
int ct_tokens_to_heads(ct_group group, const ct_tensor *xs, int count, int64_t total, ct_tensor *outs, ct_message *error);
// And back: all tokens of this rank's heads, x [T, H, D], become this rank's chunk of the tokens of all heads, [c, H * n, D].
int ct_heads_to_tokens(ct_group group, ct_tensor x, CT_RESULT);

// x . weight^T + bias, where the weight's rows from `first` on are held by `copies` neighbouring ranks of the group alike, each of
// which sees a part of their gradient: it is summed over them.
int ct_copied_rows_linear(ct_group group, ct_tensor x, ct_tensor weight, ct_tensor bias, int64_t first, int copies, CT_RESULT);

// x, which `copies` neighbouring ranks of the group hold alike and each see a part of the gradient of: it is summed over them.
int ct_sum_copies(ct_group group, ct_tensor x, int copies, CT_RESULT);

// Rows of an embedding of which this rank holds those from `first` on: zeros for the ids that other ranks hold.
int ct_embedding_part(ct_tensor weight, ct_tensor ids, int64_t first, CT_RESULT);

// ct_token_log_probs where each rank holds the weight's rows from its own `first` on, no row twice and none missing. The hidden
// states' gradient is this rank's part of a sum; `chunk` 0: as many rows as suit the device.
int ct_parallel_token_log_probs(ct_group group, ct_tensor hidden, ct_tensor weight, ct_tensor targets, int64_t first, int64_t vocabulary,
                                double temperature, double scale, double soft_cap, int64_t chunk, ct_tensor *log_probs,
                                ct_tensor *entropies, ct_message *error);

#ifdef __cplusplus
}
#endif
#endif
