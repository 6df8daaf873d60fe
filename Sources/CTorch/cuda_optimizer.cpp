// AdamW on CUDA: the kernels of cuda/optimizer.cu over lists of tensors.
#include "cuda_driver.hpp"
#include "cuda_optimizer.hpp"

#include <map>

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
using namespace cuda;
namespace {

constexpr char codes_text[] = {
#embed "cuda/moment_codes.inc"
};
constexpr char optimizer_text[] = {
#embed "cuda/optimizer.cu"
};

constexpr unsigned threads = 256;

const std::string &text() {
    static const std::string whole = "#define MOMENT_CODE __device__ __forceinline__\n#define LEADING_ZEROS __clz\n"
                                     "#define FLOAT_BITS __float_as_uint\n" +
                                     std::string(codes_text, sizeof codes_text) + "\n" +
                                     std::string(optimizer_text, sizeof optimizer_text);
    return whole;
}

CudaKernel &kernel(c10::Device device, const Kind &kind, const char *name) {
    return CudaKernel::get(device, "optimizer.cu", text().data(), text().size(), kind.options(), name);
}

void *place(const at::Tensor &x, int64_t element) {
    return x.defined() ? static_cast<char *>(x.mutable_data_ptr()) + element * x.element_size() : nullptr;
}

int64_t chunks(int64_t count) { return (count + chunk - 1) / chunk; }

} // namespace

namespace cuda {

std::vector<std::string> Kind::options() const {
    auto define = [](const char *name, int value) { return std::string("-D") + name + "=" + std::to_string(value); };
    return {define("WEIGHT_BF16", half_weight), define("MASTER", master),         define("GRAD_BF16", half_grad),
            define("MOMENTS", static_cast<int>(moments)), define("STOCHASTIC", is_stochastic), define("CHUNK", chunk)};
}

Kind kind(const AdamWTensor &t, bool is_stochastic) {
    const bool half = t.weight.scalar_type() == at::kBFloat16;
    const auto stored = moments(t);
    return {half, t.master.defined(), t.grad.scalar_type() == at::kBFloat16, stored,
            is_stochastic && (stored == Moments::bfloat16 || (half && !t.master.defined()))};
}

Entry entry(const AdamWTensor &t, int64_t &first_chunk) {
    Entry e{place(t.weight, 0), static_cast<float *>(place(t.master, 0)), place(t.grad, 0), place(t.first, 0), place(t.second, 0),
            static_cast<float *>(place(t.first_scale, 0)), static_cast<float *>(place(t.second_scale, 0)), t.weight.numel(),
            first_chunk, 0, static_cast<int>(t.slot), static_cast<float>(t.weight_decay)};
    first_chunk += chunks(e.count);
    return e;
}

void launch_apply(c10::Device device, const Kind &k, void *entries, int count, int64_t chunk_count, const AdamWState &state,
                  const ct_adamw_step &o) {
    if (chunk_count == 0) return;
    const void *steps = state.steps.const_data_ptr(), *corrections = state.corrections.const_data_ptr(),
               *control = state.control.const_data_ptr();
    float lr = static_cast<float>(o.lr), beta1 = static_cast<float>(o.beta1), beta2 = static_cast<float>(o.beta2),
          eps = static_cast<float>(o.eps);
    unsigned long long seed = o.seed;
    void *arguments[] = {&entries, &count, &steps, &corrections, &control, &lr, &beta1, &beta2, &eps, &seed};
    kernel(device, k, "apply").launch(device, static_cast<unsigned>(chunk_count), 1, 1, threads, 0, arguments);
}

void adamw_squares(const std::vector<AdamWTensor> &tensors, const at::Tensor &control) {
    const auto device = control.device();
    std::map<bool, std::pair<std::vector<Entry>, int64_t>> groups;
    for (const auto &t : tensors) {
        auto &[entries, chunk_count] = groups[t.grad.scalar_type() == at::kBFloat16];
        entries.push_back(entry(t, chunk_count));
    }
    bool is_first = true;
    for (auto &[is_half, group] : groups) {
        auto &[entries, chunk_count] = group;
        const Kind k{is_half, false, is_half, Moments::float32, false};
        long long all = chunk_count;
        // As many as a device runs at once, the same on every one: the sum's order depends on it.
        const auto blocks = static_cast<unsigned>(std::min<int64_t>(std::max<int64_t>(all, 1), 2048));
        const auto partials = at::empty({static_cast<int64_t>(blocks)}, control.options()), table = upload(entries, device);
        void *table_at = table.mutable_data_ptr(), *partials_at = partials.mutable_data_ptr(), *control_at = control.mutable_data_ptr();
        int count = static_cast<int>(entries.size()), parts = static_cast<int>(blocks), first = is_first;
        void *arguments[] = {&table_at, &count, &all, &partials_at};
        kernel(device, k, "squares").launch(device, blocks, 1, 1, threads, 0, arguments);
        void *adding[] = {&partials_at, &parts, &first, &control_at};
        kernel(device, k, "add_squares").launch(device, 1, 1, 1, threads, 0, adding);
        is_first = false;
    }
    if (is_first) control.zero_();
}

void adamw_prepare(const std::vector<AdamWTensor> &tensors, const AdamWState &state, double max_norm, const ct_adamw_step &o) {
    const auto device = state.control.device();
    std::vector<int> slots;
    for (const auto &t : tensors) slots.push_back(static_cast<int>(t.slot));
    const auto table = upload(slots, device);
    void *slots_at = table.mutable_data_ptr(), *steps = state.steps.mutable_data_ptr(), *corrections = state.corrections.mutable_data_ptr(),
         *control = state.control.mutable_data_ptr();
    int count = static_cast<int>(slots.size());
    double limit = max_norm, beta1 = o.beta1, beta2 = o.beta2;
    void *arguments[] = {&slots_at, &count, &steps, &corrections, &control, &limit, &beta1, &beta2};
    kernel(device, {false, false, false, Moments::float32, false}, "prepare").launch(device, 1, 1, 1, threads, 0, arguments);
}

void adamw_apply(const std::vector<AdamWTensor> &tensors, const AdamWState &state, const ct_adamw_step &o, StateStream *stream) {
    const auto device = state.control.device();
    std::map<Kind, std::pair<std::vector<Entry>, int64_t>> groups;
    std::vector<AdamWTensor> streamed;
    for (const auto &t : tensors) {
        if (is_on_host(t)) {
            streamed.push_back(t);
            continue;
        }
        auto &[entries, chunk_count] = groups[kind(t, o.is_stochastic)];
        entries.push_back(entry(t, chunk_count));
    }
    // First what has to travel home afterwards.
    if (!streamed.empty()) {
        TORCH_CHECK(stream, "AdamW: states in host memory, and no stream for them");
        stream->apply(streamed, state, o);
    }
    for (auto &[k, group] : groups) {
        auto &[entries, chunk_count] = group;
        const auto table = upload(entries, device);
        launch_apply(device, k, table.mutable_data_ptr(), static_cast<int>(entries.size()), chunk_count, state, o);
    }
}

} // namespace cuda

int compile_optimizer(const std::string &architecture) {
    int count = 0;
    for (const auto stored : {Moments::float32, Moments::bfloat16, Moments::codes})
        // Wholly float32, with masters, and wholly bfloat16.
        for (const auto &k : {Kind{false, false, false, stored, false}, Kind{true, true, false, stored, false},
                              Kind{true, false, true, stored, true}}) {
            compile_cuda("optimizer.cu", text().data(), text().size(), k.options(), architecture);
            ++count;
        }
    return count;
}

} // namespace ct
