#pragma once
// The kernels of cuda/layers.cu. Who calls one asks first whether it applies; where it does not, layers.cpp composes.
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

// Whether `x` is where the kernels run: bfloat16 on CUDA, no gradients recorded.
bool has_fused_layers(const at::Tensor &x);

// While one lives, its thread has no fused layers: a checkpointed layer's first run, which records nothing, must round as its
// second, which does.
class Unfused {
  public:
    explicit Unfused(bool on);
    ~Unfused();
    Unfused(const Unfused &) = delete;

  private:
    const bool before;
};

// Whether residual_norm takes rows like those of `x`, under these norms.
bool has_residual_norm(const at::Tensor &x, const Norm &norm);
// sum = x + multiplier * delta_norm(delta), normed = norm(sum); undefined where there is nothing to add or no norm.
struct ResidualNorm {
    at::Tensor sum, normed;
};
ResidualNorm residual_norm(const at::Tensor &x, const at::Tensor &delta, const Norm &delta_norm, double multiplier,
                           const Norm &norm, bool want_sum);

enum class Gate : int { silu, gelu, gelu_tanh };
bool has_gated_activation(const at::Tensor &gate_up);
at::Tensor gated_activation(const at::Tensor &gate_up, Gate gate);

// heads [T, (Hq + 2 Hk) D], of which the first `rotated` dimensions of a head are turned; pools may be undefined.
bool has_rotary_store(const at::Tensor &heads, int64_t head, int64_t rotated, const at::Tensor &key_pool,
                      const at::Tensor &value_pool);
struct RotaryStore {
    int64_t query_heads, kv_heads;
    at::Tensor cos, sin;             // float32 [T, R/2], or undefined
    Norm query_norm, key_norm;
    at::Tensor key_pool, value_pool; // [S, Hk, D] bfloat16 or both float8_e4m3fn, or undefined
    at::Tensor slots;                // int32 [T]
};
void rotary_store_(const at::Tensor &heads, int64_t head, const RotaryStore &terms);

bool has_rotary_angles(const at::Tensor &positions, const at::Tensor &frequencies);
std::pair<at::Tensor, at::Tensor> rotary_angles(const at::Tensor &positions, const at::Tensor &frequencies, double factor);

// For ct_compile_cuda_kernels.
void compile_layers(const std::string &architecture);

} // namespace ct
