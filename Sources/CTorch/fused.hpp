#pragma once
// The kernels of cuda/layers.cu and cuda/layers_backward.cu. Who calls one asks first whether it applies; where it does not, layers.cpp
// composes.
#include <ATen/ATen.h>
#include <string>
#include <vector>

namespace ct {

// A weight [C] of an RMS norm; undefined: no norm.
struct Norm {
    at::Tensor weight;
    double eps = 0;
    bool unit_offset = false; // the weight is stored less one
};

// Whether `x` is where the kernels run: bfloat16 or float32 on CUDA, unless this thread is told to do without.
bool has_fused_layers(const at::Tensor &x);

// Whether residual_norm takes rows like those of `x`, under these norms.
bool has_residual_norm(const at::Tensor &x, const Norm &norm);
// sum = x + multiplier * delta_norm(delta), normed = norm(sum); undefined where there is nothing to add or no norm.
struct ResidualNorm {
    at::Tensor sum, normed;
};
ResidualNorm residual_norm(const at::Tensor &x, const at::Tensor &delta, const Norm &delta_norm, double multiplier,
                           const Norm &norm, bool want_sum);
// Of norm(x): the gradient of x, `d_sum`, if any, added, and, float32, of the weight. x is what residual_norm takes.
struct NormGradients {
    at::Tensor x, weight;
};
NormGradients norm_backward(const at::Tensor &x, const Norm &norm, const at::Tensor &d_normed, const at::Tensor &d_sum);

enum class Gate : int { silu, gelu, gelu_tanh };
bool has_gated_activation(const at::Tensor &gate_up);
at::Tensor gated_activation(const at::Tensor &gate_up, Gate gate);
at::Tensor gated_activation_backward(const at::Tensor &gate_up, const at::Tensor &d_out, Gate gate);

// Queries, keys and values of one projection, heads [T, (Hq + 2 Hk) D].
struct HeadTerms {
    int64_t query_heads, kv_heads;
    at::Tensor cos, sin;             // float32 [T, R/2]: the first R dimensions of a head are turned; or undefined
    Norm query_norm, key_norm;       // by head
    at::Tensor key_pool, value_pool; // [S, Hk, D] of the heads' type or both float8_e4m3fn, or undefined
    at::Tensor slots;                // int32 [T]
    int64_t rotated() const { return cos.defined() ? 2 * cos.size(1) : 0; }
};
bool has_head_kernel(const at::Tensor &heads, int64_t head, const HeadTerms &terms);
// Queries and keys, prepared, into `out`, rows of at least (Hq + Hk) D, which may be `heads`.
void prepare_heads(const at::Tensor &heads, const at::Tensor &out, int64_t head, const HeadTerms &terms);
// Whether it may overwrite `heads` and store.
bool has_rotary_store(const at::Tensor &heads, int64_t head, int64_t rotated, const at::Tensor &key_pool,
                      const at::Tensor &value_pool);
// Gradients of queries [T, Hq, D], keys and values, undefined where none came, to those of the rows of heads; and of the norms'
// weights, float32. `heads` as they were are read only where there are norms; their sizes and options are given apart.
struct HeadGradients {
    at::Tensor heads, query_weight, key_weight;
};
HeadGradients prepare_heads_backward(const at::Tensor &heads, int64_t rows, const at::TensorOptions &options, int64_t head, const HeadTerms &terms, const at::Tensor &d_query,
                                     const at::Tensor &d_key, const at::Tensor &d_value);

bool has_rotary_angles(const at::Tensor &positions, const at::Tensor &frequencies);
std::pair<at::Tensor, at::Tensor> rotary_angles(const at::Tensor &positions, const at::Tensor &frequencies, double factor);

// For ct_compile_cuda_kernels: how many texts there are.
int compile_layers(const std::string &architecture);

} // namespace ct
