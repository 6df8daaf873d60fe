// What a generation step does on the device besides the model: its input ids, and draws that nobody waits for.
#include "cuda_driver.hpp"
#include "cuda_kernels.hpp"
#include "rows.hpp"

#pragma clang diagnostic ignored "-Wc23-extensions"

using namespace ct;

namespace {

constexpr char select_ids_text[] = {
#embed "cuda/select_ids.cu"
};

at::Tensor select_ids(const at::Tensor &known, const at::Tensor &source, const at::Tensor &previous) {
    if (!known.is_cuda())
        return at::where(source.ge(0), previous.index_select(0, source.clamp_min(0)), known);
    auto ids = at::empty_like(known);
    const void *known_at = known.const_data_ptr(), *source_at = source.const_data_ptr(), *previous_at = previous.const_data_ptr();
    void *ids_at = ids.mutable_data_ptr();
    int count = static_cast<int>(known.numel());
    void *arguments[] = {&known_at, &source_at, &previous_at, &ids_at, &count};
    CudaKernel::get(known.device(), "select_ids.cu", select_ids_text, sizeof select_ids_text, {}, "select_ids")
        .launch(known.device(), (count + 255) / 256, 1, 1, 256, 0, arguments);
    return ids;
}

// int32 [2, B]: tokens, and the bits of their log-probabilities.
at::Tensor draw(const at::Tensor &logits, const at::Tensor &temperatures, const at::Tensor &uniforms) {
    if (has_sample_rows(logits)) return sample_rows(logits, temperatures, uniforms);
    const auto greedy = temperatures.le(0).unsqueeze(1);
    const auto scale = at::where(greedy, at::ones_like(temperatures).unsqueeze(1), temperatures.reciprocal().unsqueeze(1));
    const auto log_p = at::log_softmax(logits.to(at::kFloat) * scale, 1);
    // float64 sums: a float32 running sum over 150,000 tokens would lose the tail.
    const auto cumulative = log_p.to(at::kDouble).exp().cumsum(1);
    const int64_t n = logits.size(1);
    const auto threshold = uniforms.to(at::kDouble).unsqueeze(1) * cumulative.narrow(1, n - 1, 1);
    const auto drawn = at::searchsorted(cumulative, threshold, false, /*right=*/true).clamp_max(n - 1);
    const auto choice = at::where(greedy, log_p.argmax(1, true), drawn);
    return at::cat({choice.to(at::kInt).transpose(0, 1), log_p.gather(1, choice).view(at::kInt).transpose(0, 1)});
}

} // namespace

extern "C" {

int ct_select_ids(ct_tensor known, ct_tensor source, ct_tensor previous, CT_RESULT) {
    return guarded(error, [&] {
        auto fits = [&](const at::Tensor &x) { return x.scalar_type() == at::kInt && x.dim() == 1 && x.is_contiguous(); };
        TORCH_CHECK(fits(T(known)) && fits(T(source)) && fits(T(previous)) && T(known).numel() == T(source).numel(),
                    "select_ids: ", T(known).sizes(), ", ", T(source).sizes(), " and ", T(previous).sizes(),
                    " must be contiguous int32 lists");
        *out = wrap(select_ids(T(known), T(source), T(previous)));
    });
}

CT_OP(ct_draw, (ct_tensor logits, ct_tensor temperatures, ct_tensor uniforms, CT_RESULT),
      draw(T(logits), T(temperatures), T(uniforms)))

} // extern "C"
