// A C interface over libtorch. Every function that can fail returns 0, or -1 with an owned message in *error (free it with
// ct_string_free); no C++ exception leaves the shim. Tensors returned through out-pointers are owned (ct_free).
#ifndef CTORCH_H
#define CTORCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ct_tensor_impl *ct_tensor;
typedef struct ct_generator_impl *ct_generator;
typedef char *ct_message;

// The tail of every op's parameter list: where the result goes, and where the message goes when there is none.
#define CT_RESULT ct_tensor *out, ct_message *error

void ct_string_free(ct_message text);
void ct_free(ct_tensor tensor);
// A second owned handle to the same tensor.
ct_tensor ct_alias(ct_tensor tensor);

// ---- runtime
const char *ct_torch_version(void);
int ct_cuda_load(const char *library_folder, ct_message *error);
int ct_cuda_device_count(void);
// Compiles every CUDA kernel for an architecture such as "sm_90", which needs NVRTC and no GPU; `count` gets how many there are.
int ct_compile_cuda_kernels(const char *architecture, int *count, ct_message *error);
int ct_device_name(int device, ct_message *out, ct_message *error);
// Of this thread.
int ct_device_make_current(int device_index, ct_message *error);
int ct_device_synchronize(int device_type, int device_index, ct_message *error);
int ct_device_empty_cache(int device_type, int index, ct_message *error);
typedef struct {
    int64_t allocated, peak_allocated, reserved, peak_reserved, free, total;
} ct_memory_stats;
int ct_device_memory(int device_type, int device_index, ct_memory_stats *out, ct_message *error);
int ct_device_reset_peak(int device_type, int device_index, ct_message *error);
void ct_set_num_threads(int count);
int ct_num_threads(void);
void ct_set_deterministic(bool on);
bool ct_cpu_has_native_bf16(void);
const char *ct_cpu_kernel_level(void);

// ---- events and graphs (CUDA)
typedef struct ct_event_impl *ct_event;
typedef struct ct_graph_impl *ct_graph;
// Marks the end of what was launched so far.
int ct_event_record(int device_index, ct_event *out, ct_message *error);
int ct_event_synchronize(ct_event event, ct_message *error);
void ct_event_free(ct_event event);
// Captures what `body` launches, which must neither wait for the device nor copy from pageable memory. Graphs that
// name one another as pool share memory: what one leaves is lost when another is replayed.
typedef int (*ct_graph_body)(void *context, ct_message *error);
int ct_graph_capture(int device_index, ct_graph pool_of_or_null, ct_graph_body body, void *context, ct_graph *out, ct_message *error);
int ct_graph_replay(ct_graph graph, ct_message *error);
void ct_graph_free(ct_graph graph);

// ---- random generators
int ct_generator_create(int device_type, int device_index, uint64_t seed, ct_generator *out, ct_message *error);
void ct_generator_free(ct_generator generator);
int ct_generator_get_state(ct_generator generator, CT_RESULT);
int ct_generator_set_state(ct_generator generator, ct_tensor state, ct_message *error);

// ---- facts (cheap, cannot fail on a defined tensor)
int ct_ndim(ct_tensor tensor);
int64_t ct_size(ct_tensor tensor, int dim);
int64_t ct_stride(ct_tensor tensor, int dim);
int64_t ct_numel(ct_tensor tensor);
int64_t ct_element_size(ct_tensor tensor);
int ct_dtype(ct_tensor tensor);
int ct_device_type(ct_tensor tensor);
int ct_device_index(ct_tensor tensor);
bool ct_is_contiguous(ct_tensor tensor);
bool ct_is_pinned(ct_tensor tensor);
bool ct_requires_grad(ct_tensor tensor);
bool ct_is_same(ct_tensor a, ct_tensor b);
void *ct_data(ct_tensor tensor);
void *ct_storage_data(ct_tensor tensor);

// ---- creation
typedef struct {
    int dtype, device_type, device_index;
    bool pinned;
} ct_options;
int ct_empty(const int64_t *sizes, int ndim, ct_options options, CT_RESULT);
int ct_full(const int64_t *sizes, int ndim, double value, ct_options options, CT_RESULT);
int ct_arange(int64_t start, int64_t end, int64_t step, ct_options options, CT_RESULT);
int ct_rand(const int64_t *sizes, int ndim, ct_generator generator, ct_options options, CT_RESULT);
int ct_randn(const int64_t *sizes, int ndim, ct_generator generator, ct_options options, CT_RESULT);
int ct_randint(int64_t low, int64_t high, const int64_t *sizes, int ndim, ct_generator generator, ct_options options,
               CT_RESULT);
// Copies `bytes` bytes of host memory.
int ct_from_bytes(const void *data, size_t bytes, const int64_t *sizes, int ndim, int dtype, CT_RESULT);
// Borrows host memory until the tensor's storage is gone; then calls release(context).
int ct_from_borrowed(void *data, const int64_t *sizes, int ndim, int dtype, void (*release)(void *), void *context,
                     CT_RESULT);

// ---- element-wise
#define CT_UNARY_OPS(X)                                                                                               \
    X(neg) X(exp) X(log) X(log1p) X(expm1) X(sqrt) X(rsqrt) X(abs) X(cos) X(sin) X(tanh) X(sigmoid) X(silu) X(relu)   \
    X(square) X(sign) X(floor) X(reciprocal) X(isfinite) X(isnan) X(logical_not) X(log_sigmoid) X(softplus)
#define CT_BINARY_OPS(X)                                                                                              \
    X(add) X(sub) X(mul) X(div) X(minimum) X(maximum) X(eq) X(ne) X(lt) X(le) X(gt) X(ge) X(logical_and)              \
    X(logical_or) X(pow) X(remainder) X(floor_divide)
#define CT_SCALAR_OPS(X)                                                                                              \
    X(add) X(sub) X(mul) X(div) X(eq) X(ne) X(lt) X(le) X(gt) X(ge) X(pow) X(remainder) X(floor_divide)
#define CT_ENUM_UNARY(name) ct_unary_##name,
#define CT_ENUM_BINARY(name) ct_binary_##name,
#define CT_ENUM_SCALAR(name) ct_scalar_##name,
enum ct_unary_op { CT_UNARY_OPS(CT_ENUM_UNARY) ct_unary_count };
enum ct_binary_op { CT_BINARY_OPS(CT_ENUM_BINARY) ct_binary_count };
enum ct_scalar_op { CT_SCALAR_OPS(CT_ENUM_SCALAR) ct_scalar_count };
int ct_unary(enum ct_unary_op op, ct_tensor a, CT_RESULT);
int ct_binary(enum ct_binary_op op, ct_tensor a, ct_tensor b, CT_RESULT);
int ct_scalar(enum ct_scalar_op op, ct_tensor a, double b, CT_RESULT);
// x * Phi(x), or its tanh approximation
int ct_gelu(ct_tensor a, bool tanh_approximation, CT_RESULT);
int ct_clamp(ct_tensor a, const double *low, const double *high, CT_RESULT);
int ct_where(ct_tensor condition, ct_tensor a, ct_tensor b, CT_RESULT);
int ct_masked_fill(ct_tensor a, ct_tensor mask, double value, CT_RESULT);

// ---- in place
int ct_copy_(ct_tensor target, ct_tensor source, bool non_blocking, ct_message *error);
int ct_add_(ct_tensor target, ct_tensor other, double alpha, ct_message *error);
int ct_mul_(ct_tensor target, ct_tensor other, ct_message *error);
int ct_scale_(ct_tensor target, double factor, ct_message *error);
int ct_fill_(ct_tensor target, double value, ct_message *error);
int ct_index_copy_(ct_tensor target, int dim, ct_tensor index, ct_tensor source, ct_message *error);
int ct_index_add_(ct_tensor target, int dim, ct_tensor index, ct_tensor source, ct_message *error);

// ---- views and layout
int ct_reshape(ct_tensor a, const int64_t *sizes, int ndim, CT_RESULT);
int ct_expand(ct_tensor a, const int64_t *sizes, int ndim, CT_RESULT);
int ct_permute(ct_tensor a, const int64_t *dims, int ndim, CT_RESULT);
int ct_transpose(ct_tensor a, int dim0, int dim1, CT_RESULT);
int ct_narrow(ct_tensor a, int dim, int64_t start, int64_t length, CT_RESULT);
int ct_select(ct_tensor a, int dim, int64_t index, CT_RESULT);
int ct_unsqueeze(ct_tensor a, int dim, CT_RESULT);
int ct_squeeze(ct_tensor a, int dim, CT_RESULT);
int ct_flatten(ct_tensor a, int from, int to, CT_RESULT);
int ct_contiguous(ct_tensor a, CT_RESULT);
int ct_clone(ct_tensor a, CT_RESULT);
int ct_detach(ct_tensor a, CT_RESULT);
int ct_cat(const ct_tensor *tensors, int count, int dim, CT_RESULT);
int ct_stack(const ct_tensor *tensors, int count, int dim, CT_RESULT);
int ct_to(ct_tensor a, ct_options options, bool non_blocking, bool copy, CT_RESULT);
int ct_pin(ct_tensor a, CT_RESULT);
// The same bytes read as another type of the same size.
int ct_view_as(ct_tensor a, int dtype, CT_RESULT);
// The same memory without owning it: for results of captured graphs, whose pool keeps the memory.
int ct_unowned(ct_tensor a, CT_RESULT);

// ---- indexing
int ct_index_select(ct_tensor a, int dim, ct_tensor index, CT_RESULT);
int ct_gather(ct_tensor a, int dim, ct_tensor index, CT_RESULT);
int ct_scatter(ct_tensor a, int dim, ct_tensor index, ct_tensor source, CT_RESULT);
int ct_scatter_add(ct_tensor a, int dim, ct_tensor index, ct_tensor source, CT_RESULT);
int ct_masked_select(ct_tensor a, ct_tensor mask, CT_RESULT);
int ct_nonzero(ct_tensor a, CT_RESULT);
int ct_embedding(ct_tensor weight, ct_tensor ids, CT_RESULT);
int ct_tril(ct_tensor a, int64_t diagonal, CT_RESULT);

// ---- reductions (count 0: over everything)
#define CT_REDUCTIONS(X) X(sum) X(mean) X(amax) X(amin) X(logsumexp) X(std_unbiased) X(var_unbiased)
#define CT_ENUM_REDUCE(name) ct_reduce_##name,
enum ct_reduction { CT_REDUCTIONS(CT_ENUM_REDUCE) ct_reduce_count };
int ct_reduce(enum ct_reduction op, ct_tensor a, const int64_t *dims, int count, bool keepdim, CT_RESULT);
int ct_argmax(ct_tensor a, int dim, bool keepdim, CT_RESULT);
int ct_cumsum(ct_tensor a, int dim, CT_RESULT);
int ct_any(ct_tensor a, CT_RESULT);
int ct_all(ct_tensor a, CT_RESULT);
int ct_sort(ct_tensor a, int dim, bool descending, ct_tensor *values, ct_tensor *indices, ct_message *error);
int ct_topk(ct_tensor a, int64_t k, int dim, ct_tensor *values, ct_tensor *indices, ct_message *error);
int ct_softmax(ct_tensor a, int dim, CT_RESULT);
int ct_log_softmax(ct_tensor a, int dim, CT_RESULT);
int ct_item(ct_tensor a, double *out, ct_message *error);
int ct_item_int(ct_tensor a, int64_t *out, ct_message *error);
int ct_equal(ct_tensor a, ct_tensor b, bool *out, ct_message *error);
// A 64-bit digest of the bytes, the same on every device.
int ct_digest(ct_tensor a, uint64_t *out, ct_message *error);
int ct_l2_norm(const ct_tensor *tensors, int count, double *out, ct_message *error);

// ---- products
int ct_matmul(ct_tensor a, ct_tensor b, CT_RESULT);
int ct_linear(ct_tensor x, ct_tensor weight, ct_tensor bias_or_null, CT_RESULT);
// A weight [N,K] of a CPU linear layer laid out for oneDNN's kernels at about `rows` rows of input, and the product with it.
// Float32 and bfloat16 on the CPU, without gradients.
int ct_pack_linear(ct_tensor weight, int64_t rows, CT_RESULT);
int ct_packed_linear(ct_tensor x, ct_tensor packed, ct_tensor bias_or_null, CT_RESULT);

// ---- quantised weights: value = (code - zero) * scale, one zero and scale an output and group of inputs; without zeros they are
// 128. Scales float32 and zeros uint8 are [groups, N rounded up to 32].
// Rounds a weight [N,K]: codes uint8 [N,K] of 8 bits (one group) or 4; *zeros is NULL for 8 bits.
int ct_quantize(ct_tensor weight, int bits, int64_t group, ct_tensor *codes, ct_tensor *scales, ct_tensor *zeros,
                ct_message *error);
// Codes in a layout for the kernels: panels for the CPU, or tiles for CUDA (N a multiple of 16, K of 64).
int ct_pack_codes(ct_tensor codes, int bits, bool tiles, CT_RESULT);
typedef struct {
    ct_tensor packed, scales, zeros_or_null;
    int64_t outputs, inputs, group;
    int bits;
} ct_quantized;
int ct_dequantize(ct_quantized weight, int dtype, CT_RESULT);
// x [T,K] times the weight transposed, without gradients.
int ct_quantized_linear(ct_tensor x, ct_quantized weight, ct_tensor bias_or_null, CT_RESULT);

// ---- layers
// On CUDA in bfloat16 and float32 these are kernels of our own (cuda/layers.cu, layers_backward.cu), as on the CPU; elsewhere
// compositions. `is_read` is false where nobody reads the result's value: it need not be computed.
typedef struct {
    ct_tensor weight; // [C], of x's type or float32; NULL where no norm is taken
    double eps;
    bool unit_offset; // the weight is stored less one, and multiplied with in float32
} ct_norm;
// x / rms(x) * weight over the last dimension, as wide as x
int ct_rms_norm(ct_tensor x, ct_norm norm, CT_RESULT);
// sum = x + multiplier * delta_norm(delta), normed = norm(sum); each rounded to x's type. *sum and *normed are set where they are
// wanted and there is a norm. Without delta the sum is x.
int ct_residual_norm(ct_tensor x, ct_tensor delta_or_null, ct_norm delta_norm, double multiplier, ct_norm norm, bool want_sum,
                     bool is_read, ct_tensor *sum, ct_tensor *normed, ct_message *error);
// x [.., H, D] with cos, sin [.., D/2] float32: rotates (first half, second half) pairs, as Hugging Face Llama does.
int ct_rotary(ct_tensor x, ct_tensor cos, ct_tensor sin, CT_RESULT);
// In place on heads [T, (Hq + 2 Hk) D], queries, keys, values: queries and keys normed by head, where there are weights, and the
// first R of their D dimensions turned by cos and sin float32 [T, R/2], where these are there; then keys and values copied to
// the pools [S, Hk, D], where there are pools, at slots int32 [T], a negative one taking nothing. Only where the query says so.
bool ct_has_rotary_store(ct_tensor heads, int head, int rotated, ct_tensor key_pool_or_null, ct_tensor value_pool_or_null);
int ct_rotary_store_(ct_tensor heads, int query_heads, int kv_heads, int head, ct_tensor cos_or_null, ct_tensor sin_or_null,
                     ct_norm query_norm, ct_norm key_norm, ct_tensor key_pool_or_null, ct_tensor value_pool_or_null,
                     ct_tensor slots_or_null, ct_message *error);
// cos and sin, float32 [T, N], of positions int64 [T] times frequencies float32 [1 or T, N]; both times `factor`
int ct_rotary_angles(ct_tensor positions, ct_tensor frequencies, double factor, ct_tensor *cos, ct_tensor *sin,
                     ct_message *error);
// gate_up [.., 2I] -> activation(gate) * up [.., I]
enum ct_gate { ct_gate_silu, ct_gate_gelu, ct_gate_gelu_tanh };
int ct_gated_activation(ct_tensor gate_up, enum ct_gate gate, bool is_read, CT_RESULT);
int ct_sdpa(ct_tensor q, ct_tensor k, ct_tensor v, ct_tensor mask_or_null, bool causal, double scale, bool gqa, CT_RESULT);

// How queries see keys: scores are scaled; a query sees itself and the window - 1 tokens before it (0: all); with a soft cap
// (0: none) scores become cap * tanh(score / cap).
typedef struct {
    double scale, soft_cap;
    int64_t window;
} ct_attention;

// The pages of a cache that rows of queries see: row b's token t lies in slot (table[starts[b] + (t >> shift)] << shift) +
// (t & (2^shift - 1)). int32 [*], [B], [B]; no length exceeds `longest`.
typedef struct {
    ct_tensor table, starts, lengths;
    int shift;
    int64_t longest;
} ct_pages;
// One query a row against cached keys: q [B,Hq,D]; pools [S,Hk,D] and [S,Hk,Dv] -> [B,Hq,Dv].
int ct_cached_attention(ct_tensor q, ct_tensor key_pool, ct_tensor value_pool, ct_pages pages, ct_attention attention, CT_RESULT);
// Sequences of queries against sequences of keys, both packed, the last query of each aligned with the last key: q [T,Hq,D],
// k, v [S,Hk,D]; int32 offsets [n+1] on the device. Where ct_has_varlen_attention says so.
int ct_varlen_attention(ct_tensor q, ct_tensor k, ct_tensor v, ct_tensor query_ends, ct_tensor key_ends, int64_t longest_query,
                        int64_t longest_key, ct_attention attention, CT_RESULT);
bool ct_has_varlen_attention(ct_tensor q, ct_tensor v, ct_attention attention);
// known[i], or where source[i] is not negative previous[source[i]]; all int32, on one device.
int ct_select_ids(ct_tensor known, ct_tensor source, ct_tensor previous, CT_RESULT);
// log p(target) and entropy at each row of hidden [T,C] under softmax(logits / temperature), in chunks of `chunk` rows so that
// no more than chunk x V logits exist at once; both results float32 [T]. logits = scale * hidden . weight^T with weight [V,C],
// then, with a soft cap (0: none), cap * tanh(logits / cap). `chunk` 0: as many rows as suit the device. Where `weight` is a leaf
// that has a gradient already, backward adds to that tensor itself.
int ct_token_log_probs(ct_tensor hidden, ct_tensor weight, ct_tensor targets, double temperature, double scale,
                       double soft_cap, int64_t chunk, bool want_entropy, ct_tensor *log_probs, ct_tensor *entropies,
                       ct_message *error);

// ---- sampling
// What a draw needs of each row, [B] on the logits' device. Floats are float64 or float32 on the CPU and float32 elsewhere; a
// temperature of 0 or less is greedy. top_k (int32; 0 or less: off), top_p and min_p are all NULL where no row is filtered.
typedef struct {
    ct_tensor temperatures, uniforms, top_k, top_p, min_p;
} ct_sampling;
// One token a row of logits [B,V] by inverse transform of the uniforms, into tokens int32 [B]; log_probs float32 [B] are those of the
// distribution at that temperature (greedy: 1) before any filter. On a device other than the CPU nothing waits, and a row that is
// not finite gets token 0 and NaN; on the CPU it is an error.
int ct_draw(ct_tensor logits, ct_sampling sampling, ct_tensor tokens, ct_tensor log_probs, ct_message *error);
// logits[rows[i], tokens[i]] becomes x / factors[i] where x > 0 and else x * factors[i], plus offsets[i]; all [N], the ids int32, the
// others float32. A row below 0 is skipped; no (row, token) comes twice.
int ct_adjust_(ct_tensor logits, ct_tensor rows, ct_tensor tokens, ct_tensor factors, ct_tensor offsets, ct_message *error);
// The `count` likeliest tokens of each row, likeliest first: tokens int32 and log_probs float32 [B,count]; and of the chosen ones,
// int32 or int64 [B], the log-probability float32 [B] and the rank int32 [B], 1 and one more for every likelier token.
int ct_top_log_probs(ct_tensor logits, ct_tensor temperatures_or_null, ct_tensor chosen, int64_t count, ct_tensor *tokens,
                     ct_tensor *log_probs, ct_tensor *chosen_log_probs, ct_tensor *ranks, ct_message *error);

// ---- mixture of experts
// Sorts the pairs (token, slot) of `experts` (int64 [T,K], each below `count`) by expert, keeping the order of an expert's own:
// order int64 [T*K] names the pair of each sorted row, place int64 [T*K] the sorted row of each pair, ends int32 [count] where
// each expert's rows end.
int ct_route(ct_tensor experts, int64_t count, ct_tensor *order, ct_tensor *place, ct_tensor *ends, ct_message *error);
// x [T,C] -> [T*K,C] in sorted order
int ct_dispatch(ct_tensor x, ct_tensor order, ct_tensor place, CT_RESULT);
// rows [R,C] times weight[e]^T for the rows of each expert, weight [E,N,C] -> [R,N]
int ct_grouped_linear(ct_tensor rows, ct_tensor weight, ct_tensor ends, CT_RESULT);
// rows [T*K,C] in sorted order, weights float32 [T,K] -> [T,C], each token's weighted sum
int ct_combine(ct_tensor rows, ct_tensor weights, ct_tensor order, ct_tensor place, CT_RESULT);

// ---- autograd
bool ct_grad_enabled(void);
void ct_set_grad_enabled(bool on);
int ct_set_requires_grad(ct_tensor tensor, bool on, ct_message *error);
int ct_grad(ct_tensor tensor, CT_RESULT); // *out is NULL when there is no gradient
int ct_set_grad(ct_tensor tensor, ct_tensor grad_or_null, ct_message *error);
int ct_backward(const ct_tensor *roots, const ct_tensor *grads_or_null, int count, ct_message *error);
ct_message ct_message_copy(const char *text);

// ---- optimizer
typedef struct {
    double lr, beta1, beta2, weight_decay, eps;
} ct_adamw;
int ct_fused_adamw_(const ct_tensor *params, const ct_tensor *grads, const ct_tensor *exp_avgs,
                    const ct_tensor *exp_avg_sqs, const ct_tensor *steps, int count, ct_adamw options, ct_message *error);
#include "ctorch_optimizer.h"

#ifdef __cplusplus
}
#endif

#include "ctorch_attention.h"
#include "ctorch_layers.h"
#endif
