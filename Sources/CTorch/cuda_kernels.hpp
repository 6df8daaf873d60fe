#pragma once
#include <ATen/ATen.h>

namespace ct {

// Whether our CUDA kernels do attention over a cache of these types and sizes.
bool has_paged_attention(const at::Tensor &query, const at::Tensor &key_pool, const at::Tensor &value_pool);

// query bf16 [B, Hq, D], pools bf16 [S, Hk, D], table int32 [B, L] of pages of 2^page_shift tokens, lengths int32 [B]; gives
// [B, Hq, D]. `window` and `soft_cap` 0: none.
at::Tensor paged_attention(const at::Tensor &query, const at::Tensor &key_pool, const at::Tensor &value_pool,
                           const at::Tensor &table, int page_shift, const at::Tensor &lengths, float scale, int64_t window,
                           float soft_cap);

} // namespace ct
