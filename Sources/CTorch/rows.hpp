#pragma once
// Between at::Tensor and the kernels' plain rows.
#include "kernels.hpp"
#include "parallel.hpp"
#include "shim.hpp"

#include <ATen/core/grad_mode.h>

namespace ct {

// torch's own const_data_ptr<T> is mangled differently by gcc, which built libtorch, and by clang.
template <class Scalar> const Scalar *data(const at::Tensor &x) { return static_cast<const Scalar *>(x.const_data_ptr()); }
inline bool on_cpu(const at::Tensor &x) { return x.device().is_cpu(); }
inline bool is_fused_type(const at::Tensor &x) {
    return x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
}
inline Element element(const at::Tensor &x) {
    TORCH_INTERNAL_ASSERT(is_fused_type(x));
    return x.scalar_type() == at::kFloat ? Element::float32 : Element::bfloat16;
}
inline Rows rows(const at::Tensor &x) {
    return {const_cast<void *>(x.const_data_ptr()), x.dim() > 1 ? x.stride(-2) : x.numel(), element(x)};
}
// A contiguous tensor seen as rows of `columns`.
inline Rows rows(const at::Tensor &x, int64_t columns) { return {const_cast<void *>(x.const_data_ptr()), columns, element(x)}; }
// Rows a thread takes at least, so that a small job stays on one core.
inline int64_t grain(int64_t work_per_row) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, work_per_row)); }
inline bool needs_graph(std::initializer_list<at::Tensor> inputs) {
    if (!at::GradMode::is_enabled()) return false;
    for (const auto &input : inputs)
        if (input.requires_grad()) return true;
    return false;
}

} // namespace ct
