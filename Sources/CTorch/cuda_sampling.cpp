#include "cuda_sampling.hpp"

#include "cuda_driver.hpp"
#include "rows.hpp"

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char sample_text[] = {
#embed "cuda/sample.cu"
    ,
#embed "cuda/sample_filters.cu"
    ,
#embed "cuda/sample_entries.cu"
};
constexpr int threads = 512, filter_shared = 49664;
constexpr int64_t largest_vocabulary = 256 * 2048;

std::vector<std::string> sample_options(bool wide, bool filters) {
    return {wide ? "-DELEMENT=float" : "-DELEMENT=bf16", filters ? "-DFILTERS=1" : "-DFILTERS=0",
            "-DFILTER_SHARED=" + std::to_string(filter_shared)};
}

CudaKernel &kernel(const at::Tensor &logits, bool filters, const char *name) {
    return CudaKernel::get(logits.device(), "sample.cu", sample_text, sizeof sample_text,
                           sample_options(logits.scalar_type() == at::kFloat, filters), name);
}

} // namespace

void sample_rows(const at::Tensor &logits, const SamplingTensors &terms, const at::Tensor &tokens, const at::Tensor &log_probs) {
    TORCH_CHECK(logits.size(1) <= largest_vocabulary, "draw: a vocabulary of ", logits.size(1), " is more than the ",
                largest_vocabulary, " that the CUDA sampler takes; draw on the CPU");
    auto x = is_fused_type(logits) ? logits : logits.to(at::kFloat);
    if (x.stride(1) != 1) x = x.contiguous();
    struct {
        const void *temperatures, *uniforms, *top_k, *top_p, *min_p;
    } pointers{terms.temperatures.const_data_ptr(), terms.uniforms.const_data_ptr(), nullptr, nullptr, nullptr};
    const bool filters = terms.top_k.defined();
    if (filters) {
        pointers.top_k = terms.top_k.const_data_ptr();
        pointers.top_p = terms.top_p.const_data_ptr();
        pointers.min_p = terms.min_p.const_data_ptr();
    }
    const void *logits_at = x.const_data_ptr();
    void *tokens_at = tokens.mutable_data_ptr(), *log_probs_at = log_probs.mutable_data_ptr();
    long long stride = x.stride(0);
    int vocabulary = static_cast<int>(x.size(1));
    // Eight logits are read at once where every row begins at a multiple of 16 bytes.
    int aligned = reinterpret_cast<uintptr_t>(logits_at) % 16 == 0 && stride * x.element_size() % 16 == 0;
    void *arguments[] = {&logits_at, &stride, &vocabulary, &aligned, &pointers, &tokens_at, &log_probs_at};
    kernel(x, filters, "sample_rows")
        .launch(x.device(), x.size(0), 1, 1, threads, filters ? filter_shared : 0, arguments);
}

void adjust_rows(const at::Tensor &logits, const at::Tensor &rows, const at::Tensor &tokens, const at::Tensor &factors,
                 const at::Tensor &offsets) {
    TORCH_CHECK(logits.stride(1) == 1, "adjust: rows of CUDA logits must be contiguous, not of strides ", logits.strides());
    struct {
        const void *rows, *tokens, *factors, *offsets;
    } entries{rows.const_data_ptr(), tokens.const_data_ptr(), factors.const_data_ptr(), offsets.const_data_ptr()};
    void *logits_at = logits.mutable_data_ptr();
    long long stride = logits.stride(0);
    int batch = static_cast<int>(logits.size(0)), vocabulary = static_cast<int>(logits.size(1));
    int count = static_cast<int>(rows.size(0));
    void *arguments[] = {&logits_at, &stride, &batch, &vocabulary, &entries, &count};
    kernel(logits, false, "adjust_rows").launch(logits.device(), (count + 255) / 256, 1, 1, 256, 0, arguments);
}

int compile_sampling(const std::string &architecture) {
    int count = 0;
    for (bool wide : {false, true})
        for (bool filters : {false, true}) {
            compile_cuda("sample.cu", sample_text, sizeof sample_text, sample_options(wide, filters), architecture);
            ++count;
        }
    return count;
}

} // namespace ct
