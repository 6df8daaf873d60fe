#pragma once
// Process groups within autograd functions.
#include "group.hpp"
#include "rows.hpp"

#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

namespace ct {

using GroupPointer = std::shared_ptr<Group>;

// Keeps a group alive as long as the graph needs it.
struct GroupHolder : torch::CustomClassHolder {
    GroupPointer group;
    explicit GroupHolder(GroupPointer group) : group(std::move(group)) {}
};
inline void keep(torch::autograd::AutogradContext *context, const GroupPointer &group) {
    context->saved_data["group"] = c10::IValue::make_capsule(c10::make_intrusive<GroupHolder>(group));
}
inline GroupPointer kept(torch::autograd::AutogradContext *context) {
    return c10::static_intrusive_pointer_cast<GroupHolder>(context->saved_data["group"].toCapsule())->group;
}

// A contiguous tensor that may be written over: `x` itself where nobody else holds it.
inline at::Tensor writable(at::Tensor &&x) {
    const bool is_own = x.use_count() == 1 && x.storage().use_count() == 1 && x.is_contiguous();
    return is_own ? std::move(x) : x.clone(at::MemoryFormat::Contiguous);
}

inline int64_t chunk_rows(int64_t total, int ranks) { return (total + ranks - 1) / ranks; }

// Zeros after the last row.
inline at::Tensor padded(const at::Tensor &x, int64_t rows) {
    if (x.size(0) == rows) return x;
    auto sizes = x.sizes().vec();
    sizes[0] = rows - x.size(0);
    return at::cat({x, at::zeros(sizes, x.options())});
}

inline at::Tensor all_gathered(Group &group, const at::Tensor &x) {
    auto sizes = x.sizes().vec();
    sizes[0] *= group.size;
    const auto all = at::empty(sizes, x.options());
    if (all.numel() > 0) group.all_gather({x.contiguous()}, {all})->wait();
    return all;
}

inline at::Tensor reduce_scattered(Group &group, const at::Tensor &x) {
    auto sizes = x.sizes().vec();
    sizes[0] /= group.size;
    const auto own = at::empty(sizes, x.options());
    if (own.numel() > 0) group.reduce_scatter({x.contiguous()}, {own}, CT_MERGE_SUM)->wait();
    return own;
}

inline at::Tensor all_reduced(Group &group, at::Tensor &&x) {
    auto sum = writable(std::move(x));
    if (sum.numel() > 0) group.all_reduce({sum}, CT_MERGE_SUM)->wait();
    return sum;
}

} // namespace ct
