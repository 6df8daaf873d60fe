#pragma once
// What AdamW's launches on CUDA share.
#include "optimizer.hpp"

#include <cstring>

namespace ct::cuda {

constexpr int64_t chunk = 16384, moment_block = 256; // elements

// What a kernel is compiled for.
struct Kind {
    bool half_weight, master, half_grad;
    Moments moments;
    bool is_stochastic;
    auto operator<=>(const Kind &) const = default;
    std::vector<std::string> options() const;
};
Kind kind(const AdamWTensor &tensor, bool is_stochastic);

// As in cuda/optimizer.cu.
struct Entry {
    void *weight;
    float *master;
    const void *grad;
    void *first, *second;
    float *first_scale, *second_scale;
    long long count, first_chunk, offset;
    int slot;
    float weight_decay;
};

// A tensor's, whose chunks begin at `first_chunk`, which moves on.
Entry entry(const AdamWTensor &tensor, int64_t &first_chunk);

// Host values on the device, by way of pinned memory: nobody waits.
template <class Value> at::Tensor upload(const std::vector<Value> &values, c10::Device device) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(Value));
    auto host = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    memcpy(host.mutable_data_ptr(), values.data(), bytes);
    return host.to(device, at::kByte, /*non_blocking=*/true);
}

void launch_apply(c10::Device device, const Kind &kind, void *entries, int count, int64_t chunk_count, const AdamWState &state,
                  const ct_adamw_step &options);

} // namespace ct::cuda
