#pragma once
// Packed attention on CUDA, forward and backward.
#include "attention_plan.hpp"

namespace ct {

// out of the queries' type [T,Hq,D]; the logarithms of the softmax's denominators, float32 [Hq,T].
struct Attended {
    at::Tensor out, log_sum_exps;
};
struct AttentionGrads {
    at::Tensor query, key, value;
};

// Whether the fused kernels take these; else attend_by_segment does.
bool has_fused_attention(const at::Tensor &q, const at::Tensor &v, const AttentionPlan &plan, const AttentionTerms &terms);
// The kernels of whole passes: "cudnn" where every pass is even enough for it, else "flash"; "efficient" for float32.
const char *fused_attention_name(const at::Tensor &q, const at::Tensor &k, const AttentionPlan &plan, const AttentionTerms &terms);
Attended fused_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPlan &plan,
                         const AttentionTerms &terms);
AttentionGrads fused_attention_backward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const Attended &attended,
                                        const at::Tensor &dout, const AttentionPlan &plan, const AttentionTerms &terms);

// Any type, window and soft cap, by libtorch's operations, which have gradients: a segment at a time over the keys that it sees.
at::Tensor attend_by_segment(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPlan &plan,
                             const AttentionTerms &terms);
// Softmax attention of [.., Hq, Tq, D] over [.., Hk, Tk, D] where `mask` [.., Tq, Tk] is true, by plain operations.
at::Tensor masked_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask,
                            const AttentionTerms &terms);

// Flash attention's window: how many keys to the left and right of its own a query sees besides it.
inline std::pair<std::optional<int64_t>, std::optional<int64_t>> flash_window(const AttentionTerms &terms) {
    if (terms.window == 0) return {};
    return {terms.window - 1, 0};
}
bool takes_flash(const at::Tensor &q, const AttentionTerms &terms);

// One pass by libtorch's memory-efficient kernels: q [n,Hq,D], k and v [m,Hk,D], all float32.
bool takes_efficient(const at::Tensor &q, const AttentionTerms &terms);
Attended efficient_forward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPass &pass,
                           const AttentionTerms &terms);
AttentionGrads efficient_backward(const at::Tensor &dout, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                                  const Attended &part, const AttentionPass &pass, const AttentionTerms &terms);

void compile_attention(const std::string &architecture);

} // namespace ct
