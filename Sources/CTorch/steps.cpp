// What a generation step does on the device besides the model and the draws: its input ids.
#include "cuda_driver.hpp"
#include "cuda_kernels.hpp"
#include "shim.hpp"

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

} // namespace

namespace ct {
void compile_steps(const std::string &architecture) {
    compile_cuda("select_ids.cu", select_ids_text, sizeof select_ids_text, {}, architecture);
}
} // namespace ct

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

} // extern "C"
