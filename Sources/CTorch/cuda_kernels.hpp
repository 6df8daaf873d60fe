#pragma once
#include "kernels.hpp"

#include <ATen/ATen.h>

namespace ct {

// Whether our CUDA kernels do attention over a cache of these types and sizes.
bool has_paged_attention(const at::Tensor &query, const at::Tensor &key_pool, const at::Tensor &value_pool);

// Where each row's keys and values lie: row b's token t in page table[starts[b] + t / 2^page_shift] of the pools. All int32 and
// contiguous; no row is longer than `longest`.
struct PagedRows {
    at::Tensor table, starts, lengths;
    int page_shift;
    int64_t longest;
};

// query bf16 [B, Hq, D], pools bf16 or e4m3 [S, Hk, D]; gives [B, Hq, D].
at::Tensor paged_attention(const at::Tensor &query, const at::Tensor &key_pool, const at::Tensor &value_pool,
                           const PagedRows &rows, const AttentionTerms &terms);

// Compile these parts' kernels for an architecture.
void compile_steps(const std::string &architecture);
void compile_digest(const std::string &architecture);

} // namespace ct
