#pragma once
// The kernels of cuda/head.cu: softmax over rows of the head's products.
#include <ATen/ATen.h>
#include <string>

namespace ct {

// x = factor * product, or with a cap above 0 factor * cap * tanh(product * into_cap).
struct HeadTransform {
    float factor, cap, into_cap;
};

// Of each row: log softmax(x)[target], the log-sum-exp and the entropy; float32 [T].
struct HeadStatistics {
    at::Tensor log_probs, log_sum_exps, entropies;
    HeadStatistics of(int64_t start, int64_t count) const {
        return {log_probs.narrow(0, start, count), log_sum_exps.narrow(0, start, count), entropies.narrow(0, start, count)};
    }
};

// Whether the kernels take products on this device in this type.
bool has_head_kernels(const at::Tensor &like);
// products [T,V], rows evenly spaced; targets int64 [T]. A target outside the vocabulary has log-probability NaN.
void head_statistics(const at::Tensor &products, HeadTransform transform, const at::Tensor &targets, const HeadStatistics &out);
// products become d loss / d products, given d loss / d log-probability and d loss / d entropy, float32 [T] or undefined for zeros.
void head_gradient_(const at::Tensor &products, HeadTransform transform, const at::Tensor &targets, const HeadStatistics &of,
                    const at::Tensor &g, const at::Tensor &ge);
// Both in one launch.
void head_both_(const at::Tensor &products, HeadTransform transform, const at::Tensor &targets, const HeadStatistics &out,
                const at::Tensor &g, const at::Tensor &ge);

void compile_head(const std::string &architecture);

} // namespace ct
