#pragma once
// A weight [N, K] in codes of 4 or 8 bits; value = (code - zero) * scale, or (code - 128) * scale without zeros.
#include <ATen/ATen.h>
#include <string>

namespace ct {

struct QuantizedWeight {
    at::Tensor packed; // in the layout of its device
    at::Tensor scales; // float32 [groups, N rounded up to 32]
    at::Tensor zeros;  // uint8, as the scales; undefined without
    int64_t outputs, inputs, group;
    int bits;
};

// The weight as bfloat16 [N, K], by a kernel of ours, on CUDA.
at::Tensor dequantize_tiles(const QuantizedWeight &weight);

// Whether `quantized_product` takes these, and is faster than to expand the weight first.
bool has_quantized_product(const at::Tensor &x, const QuantizedWeight &weight);

// x bf16 [M, K] times the weight transposed, and the bias added, by a kernel of ours.
at::Tensor quantized_product(const at::Tensor &x, const QuantizedWeight &weight, const c10::optional<at::Tensor> &bias);

// Compiles what the above launch for an architecture; gives how many texts there are.
int compile_quantized_kernels(const std::string &architecture);

} // namespace ct
