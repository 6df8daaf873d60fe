#pragma once
// AdamW over lists of tensors, between the C interface and the kernels of each device.
#include "shim.hpp"

#include <ATen/ATen.h>
#include <string>
#include <vector>

namespace ct {

// As ct_adamw_tensor, flat; what is not there is undefined.
struct AdamWTensor {
    at::Tensor weight, master, grad, first, second, first_scale, second_scale;
    double weight_decay = 0;
    int64_t slot = 0;

    int64_t count() const { return weight.defined() ? weight.numel() : grad.numel(); }
};

// How moments are stored.
enum class Moments : int { float32, bfloat16, codes };
Moments moments(const AdamWTensor &tensor);

struct AdamWState {
    at::Tensor steps, corrections, control;
};

namespace cuda {
void adamw_squares(const std::vector<AdamWTensor> &tensors, const at::Tensor &control);
void adamw_prepare(const std::vector<AdamWTensor> &tensors, const AdamWState &state, double max_norm, const ct_adamw_step &options);
void adamw_apply(const std::vector<AdamWTensor> &tensors, const AdamWState &state, const ct_adamw_step &options);
} // namespace cuda

// Compiles this part's kernels for an architecture; gives how many there are.
int compile_optimizer(const std::string &architecture);

} // namespace ct
