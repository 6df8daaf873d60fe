#include "cuda_kernels.hpp"

#include "attention_cuda.hpp"
#include "cuda_driver.hpp"
#include "cuda_sampling.hpp"
#include "fused.hpp"
#include "head_cuda.hpp"
#include "optimizer.hpp"
#include "quantized.hpp"
#include "shim.hpp"

#include <c10/core/GradMode.h>

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char paged_attention_text[] = {
#embed "cuda/paged_attention.cu"
};

constexpr int warps = 4;

// Tokens that a warp takes at a time, and how many such tiles are on their way or in use. The fastest of those measured: in e4m3
// a token is half the bytes, and twice as many share what a tile costs whatever its size.
int64_t tile(bool is_float8) { return is_float8 ? 32 : 16; }
int64_t stages(bool is_float8) { return is_float8 ? 2 : 3; }

std::vector<std::string> attention_options(int64_t head, bool is_float8) {
    return {"-DHEAD=" + std::to_string(head), "-DSTAGES=" + std::to_string(stages(is_float8)),
            "-DTILE=" + std::to_string(tile(is_float8)), is_float8 ? "-DFLOAT8=1" : "-DFLOAT8=0"};
}

CudaKernel &attention_kernel(c10::Device device, int64_t head, bool is_float8, const char *name) {
    return CudaKernel::get(device, "paged_attention.cu", paged_attention_text, sizeof paged_attention_text,
                           attention_options(head, is_float8), name);
}

bool is_supported_head(int64_t head) { return head == 64 || head == 96 || head == 128 || head == 256; }

} // namespace

bool has_paged_attention(const at::Tensor &query, const at::Tensor &key_pool, const at::Tensor &value_pool) {
    auto is_dense = [&](const at::Tensor &pool) {
        return pool.scalar_type() == key_pool.scalar_type() &&
               (pool.scalar_type() == at::kBFloat16 || pool.scalar_type() == at::kFloat8_e4m3fn) && pool.is_contiguous();
    };
    return query.is_cuda() && query.scalar_type() == at::kBFloat16 && is_dense(key_pool) && is_dense(value_pool) &&
           is_supported_head(query.size(2)) && value_pool.size(2) == query.size(2) && !c10::GradMode::is_enabled();
}

at::Tensor paged_attention(const at::Tensor &query, const at::Tensor &key_pool, const at::Tensor &value_pool,
                           const PagedRows &rows, const AttentionTerms &terms) {
    const auto q = query.stride(2) == 1 && query.stride(1) == query.size(2) ? query : query.contiguous();
    const int64_t batch = q.size(0), query_heads = q.size(1), head = q.size(2), kv_heads = key_pool.size(1);
    const int64_t parts = kv_heads * ((query_heads / kv_heads + 15) / 16);
    // Enough blocks for two on each of some 130 multiprocessors, each with 256 tokens at least.
    int64_t splits = std::max<int64_t>(1, 256 / std::max<int64_t>(1, batch * parts));
    splits = std::min({splits, std::max<int64_t>(1, rows.longest / 256), int64_t(16)});
    auto out = at::empty({batch, query_heads, head}, q.options());
    at::Tensor partial, weights;
    if (splits > 1) {
        partial = at::empty({batch, query_heads, splits, head}, q.options().dtype(at::kFloat));
        weights = at::empty({batch, query_heads, splits, 2}, q.options().dtype(at::kFloat));
    }
    const void *query_at = q.const_data_ptr(), *key_at = key_pool.const_data_ptr(), *value_at = value_pool.const_data_ptr(),
               *table_at = rows.table.const_data_ptr(), *start_at = rows.starts.const_data_ptr(),
               *length_at = rows.lengths.const_data_ptr();
    void *out_at = out.mutable_data_ptr(), *partial_at = splits > 1 ? partial.mutable_data_ptr() : nullptr,
         *terms_at = splits > 1 ? weights.mutable_data_ptr() : nullptr;
    int heads = static_cast<int>(query_heads), kv = static_cast<int>(kv_heads), page_shift = rows.page_shift,
        parts_of_context = static_cast<int>(splits), seen = static_cast<int>(std::min<int64_t>(terms.window, 1 << 30));
    long long query_stride = q.stride(0);
    float scale = terms.scale, soft_cap = terms.soft_cap;
    void *arguments[] = {&query_at,   &key_at, &value_at, &table_at,   &start_at,         &length_at,    &out_at, &partial_at,
                         &terms_at,   &heads,  &kv,       &page_shift, &parts_of_context, &query_stride, &scale,  &soft_cap,
                         &seen};
    const bool is_float8 = key_pool.scalar_type() == at::kFloat8_e4m3fn;
    const int64_t row_bytes = (head == 96 ? 128 : head) * key_pool.element_size();
    // What comes in from the cache; then, in the same place, 16 queries' shares of each warp.
    const int64_t shared = std::max(warps * stages(is_float8) * 2 * tile(is_float8) * row_bytes, warps * 16 * (head * 4 + 8));
    attention_kernel(q.device(), head, is_float8, "paged_decode")
        .launch(q.device(), parts, splits, batch, warps * 32, shared, arguments);
    if (splits > 1) {
        void *merging[] = {&partial_at, &terms_at, &out_at, &parts_of_context};
        attention_kernel(q.device(), head, is_float8, "merge_splits")
            .launch(q.device(), batch * query_heads, 1, 1, head / 2, 0, merging);
    }
    return out;
}

} // namespace ct

extern "C" int ct_compile_cuda_kernels(const char *architecture, int *count, ct_message *error) {
    return ct::guarded(error, [&] {
        *count = 0;
        for (int64_t head : {64, 96, 128, 256})
            for (bool is_float8 : {false, true}) {
                ct::compile_cuda("paged_attention.cu", ct::paged_attention_text, sizeof ct::paged_attention_text,
                                 ct::attention_options(head, is_float8), architecture);
                ++*count;
            }
        *count += ct::compile_sampling(architecture);
        *count += ct::compile_layers(architecture);
        ct::compile_steps(architecture);
        ct::compile_attention(architecture);
        ct::compile_head(architecture);
        ct::compile_digest(architecture);
        *count += 4;
        *count += ct::compile_quantized_kernels(architecture);
        *count += ct::compile_optimizer(architecture);
    });
}
