// AdamW in one pass over many tensors, and gradients that sum themselves up.
#include "optimizer.hpp"

#include "kernels.hpp"
#include "parallel.hpp"

#include <ATen/core/grad_mode.h>
#include <cmath>
#include <cstring>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace ct {
namespace {

// 256 elements of one tensor.
struct AdamWBlock {
    void *weight;
    float *master;
    const void *grad;
    void *first, *second;
    float *first_scale, *second_scale;
    int count;
    bool wide_weight, wide_grad, is_stochastic;
    Moments moments;
    float factor, beta1, beta2, keep, rate, by_second, eps;
    uint32_t key, offset;
};

struct MomentTables {
    float first[256], second[256], decades[18];
};

struct OptimizerKernels {
    float (*squares)(const void *grad, bool is_wide, int count);
    void (*adamw)(const AdamWBlock &block, const MomentTables &tables);
    void (*encode)(const float *x, bool is_signed, uint8_t *codes, float *scale, int count, const float *decades);
    void (*decode)(const uint8_t *codes, float scale, float *x, int count, const float *table);
    void (*fill)(MomentTables &tables);
    uint32_t (*key)(uint64_t seed, int64_t slot, float step);
};

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
namespace on_avx512 {
#include "optimizer_kernels.inc"
}
#pragma clang attribute pop
#undef MOMENT_CODE
#undef OPTIMIZER_INLINE
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
namespace on_avx2 {
#include "optimizer_kernels.inc"
}
#pragma clang attribute pop
#undef MOMENT_CODE
#undef OPTIMIZER_INLINE
namespace on_baseline {
#include "optimizer_kernels.inc"
}

const OptimizerKernels &optimizer_kernels() {
    static const OptimizerKernels &chosen = []() -> const OptimizerKernels & {
        if (!strcmp(kernels().name, "avx512")) return on_avx512::optimizer_kernels;
        return strcmp(kernels().name, "avx2") ? on_baseline::optimizer_kernels : on_avx2::optimizer_kernels;
    }();
    return chosen;
}

const MomentTables &tables() {
    static const MomentTables made = [] {
        MomentTables tables{};
        optimizer_kernels().fill(tables);
        return tables;
    }();
    return made;
}

constexpr int64_t block = MOMENT_BLOCK, chunk = 64 * block;

// A stretch of at most `chunk` elements of one tensor.
struct Stretch {
    const AdamWTensor *tensor;
    int64_t begin, end;
};

std::vector<Stretch> stretches(const std::vector<AdamWTensor> &tensors) {
    std::vector<Stretch> all;
    for (const auto &tensor : tensors)
        for (int64_t begin = 0, count = tensor.count(); begin < count; begin += chunk)
            all.push_back({&tensor, begin, std::min(count, begin + chunk)});
    return all;
}

char *place(const at::Tensor &x, int64_t element) {
    return x.defined() ? static_cast<char *>(x.mutable_data_ptr()) + element * x.element_size() : nullptr;
}

void cpu_squares(const std::vector<AdamWTensor> &tensors, const at::Tensor &control) {
    const auto parts = stretches(tensors);
    std::vector<double> sums(parts.size(), 0);
    ct::parallel_for(0, static_cast<int64_t>(parts.size()), 1, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
            const auto &part = parts[p];
            const bool is_wide = part.tensor->grad.scalar_type() == at::kFloat;
            for (int64_t i = part.begin; i < part.end; i += block)
                sums[p] += optimizer_kernels().squares(place(part.tensor->grad, i), is_wide,
                                                       static_cast<int>(std::min(block, part.end - i)));
        }
    });
    // In order, whichever thread was first.
    double total = 0;
    for (double sum : sums) total += sum;
    control.mutable_data_ptr<double>()[ct_control_squares] = total;
}

void cpu_prepare(const std::vector<AdamWTensor> &tensors, const AdamWState &state, double max_norm, const ct_adamw_step &o) {
    auto *control = state.control.mutable_data_ptr<double>();
    auto *steps = state.steps.mutable_data_ptr<float>(), *corrections = state.corrections.mutable_data_ptr<float>();
    const double norm = std::sqrt(control[ct_control_squares]);
    control[ct_control_norm] = norm;
    control[ct_control_factor] = max_norm > 0 && norm > max_norm ? max_norm / (norm + 1e-6) : 1.0;
    control[ct_control_taken] = std::isfinite(norm);
    if (!std::isfinite(norm)) return;
    for (const auto &tensor : tensors) {
        const double step = steps[tensor.slot] += 1;
        corrections[2 * tensor.slot] = static_cast<float>(1 / (1 - std::pow(o.beta1, step)));
        corrections[2 * tensor.slot + 1] = static_cast<float>(1 / std::sqrt(1 - std::pow(o.beta2, step)));
    }
}

void cpu_apply(const std::vector<AdamWTensor> &tensors, const AdamWState &state, const ct_adamw_step &o) {
    const auto *control = state.control.mutable_data_ptr<double>();
    if (control[ct_control_taken] == 0) return;
    const auto *corrections = state.corrections.mutable_data_ptr<float>(), *steps = state.steps.mutable_data_ptr<float>();
    const auto parts = stretches(tensors);
    ct::parallel_for(0, static_cast<int64_t>(parts.size()), 1, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
            const auto &t = *parts[p].tensor;
            const float by_first = corrections[2 * t.slot], lr = static_cast<float>(o.lr);
            AdamWBlock b{};
            b.wide_weight = t.weight.scalar_type() == at::kFloat;
            b.wide_grad = t.grad.scalar_type() == at::kFloat;
            b.moments = moments(t);
            b.is_stochastic = o.is_stochastic && (b.moments == Moments::bfloat16 || (!b.wide_weight && !t.master.defined()));
            b.factor = static_cast<float>(control[ct_control_factor]);
            b.beta1 = static_cast<float>(o.beta1);
            b.beta2 = static_cast<float>(o.beta2);
            b.keep = 1 - lr * static_cast<float>(t.weight_decay);
            b.rate = lr * by_first;
            b.by_second = corrections[2 * t.slot + 1];
            b.eps = static_cast<float>(o.eps);
            b.key = optimizer_kernels().key(o.seed, t.slot, steps[t.slot]);
            for (int64_t i = parts[p].begin; i < parts[p].end; i += block) {
                b.weight = place(t.weight, i);
                b.master = reinterpret_cast<float *>(place(t.master, i));
                b.grad = place(t.grad, i);
                b.first = place(t.first, i);
                b.second = place(t.second, i);
                b.first_scale = reinterpret_cast<float *>(place(t.first_scale, i / block));
                b.second_scale = reinterpret_cast<float *>(place(t.second_scale, i / block));
                b.count = static_cast<int>(std::min(block, parts[p].end - i));
                b.offset = static_cast<uint32_t>(i);
                optimizer_kernels().adamw(b, tables());
            }
        }
    });
}

at::Tensor flat(ct_tensor tensor) {
    if (!tensor) return {};
    TORCH_CHECK(T(tensor).is_contiguous(), "AdamW: a tensor of ", T(tensor).sizes(), " is not contiguous");
    return T(tensor).detach().view({-1});
}

bool is_float(const at::Tensor &x) { return x.scalar_type() == at::kFloat; }
bool is_float_or_half(const at::Tensor &x) { return is_float(x) || x.scalar_type() == at::kBFloat16; }

std::vector<AdamWTensor> read(const ct_adamw_tensor *tensors, int count, bool needs_grad = true) {
    std::vector<AdamWTensor> all;
    for (int i = 0; i < count; ++i) {
        const auto &raw = tensors[i];
        AdamWTensor t{flat(raw.weight),        flat(raw.master),           flat(raw.grad),
                      flat(raw.exp_avg),       flat(raw.exp_avg_sq),       flat(raw.exp_avg_scale),
                      flat(raw.exp_avg_sq_scale), raw.weight_decay,        raw.slot};
        TORCH_CHECK(t.weight.defined() && (t.grad.defined() || !needs_grad) && t.first.defined() && t.second.defined(), "AdamW: tensor ", i,
                    " lacks a part");
        if (!t.grad.defined()) t.grad = t.weight;
        const int64_t n = t.weight.numel();
        TORCH_CHECK(is_float_or_half(t.weight) && is_float_or_half(t.grad) && (!t.master.defined() || is_float(t.master)),
                    "AdamW: a weight of ", t.weight.scalar_type(), " with a gradient of ", t.grad.scalar_type());
        TORCH_CHECK(t.grad.numel() == n && t.first.numel() == n && t.second.numel() == n && (!t.master.defined() || t.master.numel() == n),
                    "AdamW: weight, gradient, moments and master differ in size: ", n, ", ", t.grad.numel(), ", ", t.first.numel());
        TORCH_CHECK(t.first.scalar_type() == t.second.scalar_type() && (is_float_or_half(t.first) || t.first.scalar_type() == at::kByte),
                    "AdamW: moments of ", t.first.scalar_type(), " and ", t.second.scalar_type());
        TORCH_CHECK(t.grad.device() == t.weight.device(), "AdamW: a gradient on ", t.grad.device(), " for a weight on ", t.weight.device());
        if (moments(t) == Moments::codes) {
            const int64_t scales = (n + block - 1) / block;
            for (const auto *scale : {&t.first_scale, &t.second_scale})
                TORCH_CHECK(scale->defined() && is_float(*scale) && scale->numel() == scales, "AdamW: 8-bit moments need ", scales, " scales");
        }
        all.push_back(std::move(t));
    }
    return all;
}

AdamWState read_state(ct_tensor steps, ct_tensor corrections, ct_tensor control) {
    AdamWState state{steps ? T(steps) : at::Tensor(), corrections ? T(corrections) : at::Tensor(), T(control)};
    TORCH_CHECK(state.control.scalar_type() == at::kDouble && state.control.numel() == ct_control_count && state.control.is_contiguous(),
                "AdamW: control must be float64 [", static_cast<int>(ct_control_count), "]");
    return state;
}

// Sums the gradients of the leaf that it hangs on.
struct GradientSum : torch::autograd::PostAccumulateGradHook {
    at::ScalarType type;
    at::Tensor sum;

    explicit GradientSum(at::ScalarType type) : type(type) {}

    void operator()(const torch::autograd::Variable &leaf) override {
        const at::NoGradGuard no_grad;
        auto &grad = leaf.mutable_grad();
        if (!grad.defined()) return;
        if (sum.defined()) sum.add_(grad);
        else sum = grad.detach().to(type, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
        grad.reset();
    }

    static GradientSum *of(const at::Tensor &leaf) {
        return dynamic_cast<GradientSum *>(torch::autograd::impl::post_acc_grad_hooks(leaf).get());
    }
};

} // namespace

Moments moments(const AdamWTensor &tensor) {
    if (tensor.first.scalar_type() == at::kFloat) return Moments::float32;
    return tensor.first.scalar_type() == at::kBFloat16 ? Moments::bfloat16 : Moments::codes;
}

} // namespace ct

using namespace ct;

extern "C" {

CT_DO(ct_sum_gradients, (ct_tensor leaf, int dtype, ct_message *error), {
    torch::autograd::impl::set_post_acc_grad_hooks(T(leaf), std::make_unique<GradientSum>(static_cast<at::ScalarType>(dtype)));
})
CT_DO(ct_gather_gradient, (ct_tensor leaf, ct_message *error), {
    if (auto *sum = GradientSum::of(T(leaf))) (*sum)(T(leaf));
})
CT_DO(ct_end_gradient_sum, (ct_tensor leaf, ct_message *error), {
    if (GradientSum::of(T(leaf))) torch::autograd::impl::set_post_acc_grad_hooks(T(leaf), nullptr);
})
int ct_gradient_sum(ct_tensor leaf, CT_RESULT) {
    return guarded(error, [&] {
        const auto *sum = GradientSum::of(T(leaf));
        *out = sum && sum->sum.defined() ? wrap(sum->sum) : nullptr;
    });
}
CT_DO(ct_clear_gradient_sum, (ct_tensor leaf, ct_message *error), {
    if (auto *sum = GradientSum::of(T(leaf))) sum->sum.reset();
})

int ct_adamw_squares_(const ct_adamw_tensor *tensors, int count, ct_tensor control, ct_message *error) {
    return guarded(error, [&] {
        const at::NoGradGuard no_grad;
        const auto all = read(tensors, count);
        const auto state = read_state(nullptr, nullptr, control);
        state.control.is_cuda() ? cuda::adamw_squares(all, state.control) : cpu_squares(all, state.control);
    });
}

int ct_adamw_prepare_(const ct_adamw_tensor *tensors, int count, ct_tensor steps, ct_tensor corrections, ct_tensor control,
                      double max_norm, ct_adamw_step options, ct_message *error) {
    return guarded(error, [&] {
        const at::NoGradGuard no_grad;
        const auto all = read(tensors, count);
        const auto state = read_state(steps, corrections, control);
        state.control.is_cuda() ? cuda::adamw_prepare(all, state, max_norm, options) : cpu_prepare(all, state, max_norm, options);
    });
}

int ct_adamw_apply_(const ct_adamw_tensor *tensors, int count, ct_tensor steps, ct_tensor corrections, ct_tensor control,
                    ct_adamw_step options, ct_state_stream stream, ct_message *error) {
    return guarded(error, [&] {
        const at::NoGradGuard no_grad;
        const auto all = read(tensors, count);
        const auto state = read_state(steps, corrections, control);
        if (state.control.is_cuda()) cuda::adamw_apply(all, state, options, reinterpret_cast<StateStream *>(stream));
        else cpu_apply(all, state, options);
    });
}

int ct_state_stream_new(int device, ct_state_stream *out, ct_message *error) {
    return guarded(error, [&] {
        *out = reinterpret_cast<ct_state_stream>(cuda::state_stream({c10::kCUDA, static_cast<c10::DeviceIndex>(device)}).release());
    });
}
void ct_state_stream_free(ct_state_stream stream) { delete reinterpret_cast<StateStream *>(stream); }

int ct_state_stream_prefetch(ct_state_stream stream, const ct_adamw_tensor *tensors, int count, int64_t room, ct_message *error) {
    return guarded(error, [&] {
        const at::NoGradGuard no_grad;
        reinterpret_cast<StateStream *>(stream)->prefetch(read(tensors, count, /*needs_grad=*/false), room);
    });
}
CT_DO(ct_state_stream_settle, (ct_state_stream stream, bool drops, ct_message *error), {
    auto *states = reinterpret_cast<StateStream *>(stream);
    if (drops) states->drop();
    else states->settle();
})

int ct_encode_moments(ct_tensor moments, bool is_signed, ct_tensor *codes, ct_tensor *scales, ct_message *error) {
    return guarded(error, [&] {
        const auto x = T(moments).detach().to(at::kCPU, at::kFloat).contiguous().view({-1});
        const int64_t n = x.numel(), blocks = (n + block - 1) / block;
        auto made = at::empty({n}, at::kByte), made_scales = at::empty({blocks}, at::kFloat);
        const auto &k = optimizer_kernels();
        ct::parallel_for(0, blocks, 64, [&](int64_t first, int64_t last) {
            for (int64_t b = first; b < last; ++b)
                k.encode(static_cast<const float *>(x.const_data_ptr()) + b * block, is_signed,
                         static_cast<uint8_t *>(made.mutable_data_ptr()) + b * block,
                         static_cast<float *>(made_scales.mutable_data_ptr()) + b, static_cast<int>(std::min(block, n - b * block)), tables().decades);
        });
        *codes = wrap(made.view(T(moments).sizes()));
        *scales = wrap(made_scales);
    });
}

int ct_decode_moments(ct_tensor codes, ct_tensor scales, bool is_signed, CT_RESULT) {
    return guarded(error, [&] {
        const auto c = T(codes).to(at::kCPU).contiguous().view({-1}), s = T(scales).to(at::kCPU).contiguous();
        const int64_t n = c.numel(), blocks = (n + block - 1) / block;
        TORCH_CHECK(c.scalar_type() == at::kByte && s.scalar_type() == at::kFloat && s.numel() == blocks, "8-bit moments of ", n,
                    " elements need ", blocks, " scales, not ", s.numel());
        auto x = at::empty({n}, at::kFloat);
        const auto &k = optimizer_kernels();
        for (int64_t b = 0; b < blocks; ++b)
            k.decode(static_cast<const uint8_t *>(c.const_data_ptr()) + b * block, static_cast<const float *>(s.const_data_ptr())[b],
                     static_cast<float *>(x.mutable_data_ptr()) + b * block,
                     static_cast<int>(std::min(block, n - b * block)), is_signed ? tables().first : tables().second);
        *out = wrap(x.view(T(codes).sizes()));
    });
}

} // extern "C"
