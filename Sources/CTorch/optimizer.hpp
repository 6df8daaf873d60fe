#pragma once
// AdamW over lists of tensors, between the C interface and the kernels of each device.
#include "shim.hpp"

#include <ATen/ATen.h>
#include <memory>
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

// The passage of states that stay in pinned host memory through the device: while some are computed with, others come and go.
class StateStream {
  public:
    virtual ~StateStream() = default;
    // Sends for the states that the next step needs, as many as fit in `room` bytes more of the device's memory, once what has been
    // launched is done. To be called again with the same tensors when there is more room.
    virtual void prefetch(const std::vector<AdamWTensor> &tensors, int64_t room) = 0;
    // What is computed travels home while the stream goes on.
    virtual void apply(const std::vector<AdamWTensor> &tensors, const AdamWState &state, const ct_adamw_step &options) = 0;
    // Waits until what the last step left is home, and frees the memory that it passed through.
    virtual void settle() = 0;
    // The same, and forgets what has been sent for: the states at home have changed.
    virtual void drop() = 0;
};

namespace cuda {
bool is_on_host(const AdamWTensor &tensor);
std::unique_ptr<StateStream> state_stream(c10::Device device);
void adamw_squares(const std::vector<AdamWTensor> &tensors, const at::Tensor &control);
void adamw_prepare(const std::vector<AdamWTensor> &tensors, const AdamWState &state, double max_norm, const ct_adamw_step &options);
void adamw_apply(const std::vector<AdamWTensor> &tensors, const AdamWState &state, const ct_adamw_step &options,
                 StateStream *stream);
} // namespace cuda

// Compiles this part's kernels for an architecture; gives how many there are.
int compile_optimizer(const std::string &architecture);

} // namespace ct
