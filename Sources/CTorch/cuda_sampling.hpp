#pragma once
#include <ATen/ATen.h>
#include <string>

namespace ct {

// What a draw needs of each row, [B] on the logits' device: temperatures (0 or less: greedy) and uniforms; top_k int32, top_p and
// min_p are all undefined where no row is filtered.
struct SamplingTensors {
    at::Tensor temperatures, uniforms, top_k, top_p, min_p;
};

// One token a row of CUDA logits [B, V] into tokens int32 [B], and its log-probability into log_probs float32 [B]; NaN, and token 0,
// for a row that is not finite. Nothing waits for the device and, for bfloat16 and float32 with contiguous rows, nothing is
// allocated.
void sample_rows(const at::Tensor &logits, const SamplingTensors &terms, const at::Tensor &tokens, const at::Tensor &log_probs);

// logits[rows[i], tokens[i]]: x / factors[i] where x > 0 and else x * factors[i], plus offsets[i]. A row below 0 is skipped.
void adjust_rows(const at::Tensor &logits, const at::Tensor &rows, const at::Tensor &tokens, const at::Tensor &factors,
                 const at::Tensor &offsets);

// Compiles the kernels for an architecture such as "sm_90"; gives how many times the text was compiled.
int compile_sampling(const std::string &architecture);

} // namespace ct
