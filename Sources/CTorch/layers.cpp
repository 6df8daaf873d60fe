// Fused layers with gradients: our kernels on the CPU, compositions of libtorch's on CUDA.
#include "rows.hpp"

#include <torch/csrc/autograd/custom_function.h>

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

// ---- RMSNorm

at::Tensor rms_forward(const at::Tensor &x, const at::Tensor &weight, double eps, at::Tensor *inverse) {
    auto y = at::empty_like(x, at::MemoryFormat::Contiguous);
    const int64_t n = x.size(-1), count = x.numel() / n;
    const auto flat = x.reshape({count, n});
    if (inverse) *inverse = at::empty({count}, x.options().dtype(at::kFloat));
    float *inverse_data = inverse ? inverse->mutable_data_ptr<float>() : nullptr;
    ct::parallel_for(0, count, grain(n), [&](int64_t begin, int64_t end) {
        kernels().rms_norm(rows(flat), rows(weight), rows(y, n), inverse_data, n, static_cast<float>(eps), begin, end);
    });
    return y;
}

struct RMSNorm : Function<RMSNorm> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &weight, double eps) {
        at::Tensor inverse;
        auto y = rms_forward(x, weight, eps, &inverse);
        context->save_for_backward({x, weight, inverse});
        return y;
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const auto &x = saved[0], &weight = saved[1], &inverse = saved[2];
        const int64_t n = x.size(-1), count = x.numel() / n;
        const auto flat = x.reshape({count, n}), dy = grads[0].reshape({count, n});
        auto dx = at::empty({count, n}, x.options());
        // One partial sum a chunk, added in chunk order: the same bits whichever thread finishes first.
        const int64_t chunks = std::min<int64_t>(count, at::get_num_threads()), size = (count + chunks - 1) / chunks;
        auto partial = at::zeros({chunks, n}, x.options().dtype(at::kFloat));
        float *partial_data = partial.mutable_data_ptr<float>();
        ct::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
            for (int64_t c = first; c < last; ++c)
                kernels().rms_norm_backward(rows(flat), rows(weight), data<float>(inverse), rows(dy), rows(dx),
                                            partial_data + c * n, n, c * size, std::min(count, (c + 1) * size));
        });
        return {dx.view(x.sizes()), partial.sum(0).to(weight.scalar_type()), at::Tensor()};
    }
};

// ---- rotary position embedding

at::Tensor rotate(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, float sign) {
    const int64_t heads = x.size(-2), dim = x.size(-1), tokens = x.numel() / (heads * dim);
    if (!on_cpu(x)) {
        const auto c = cos.unsqueeze(-2), s = sin.unsqueeze(-2) * sign;
        const auto wide = x.to(at::kFloat);
        const auto first = wide.narrow(-1, 0, dim / 2), second = wide.narrow(-1, dim / 2, dim / 2);
        return at::cat({first * c - second * s, second * c + first * s}, -1).to(x.scalar_type());
    }
    const auto input = x.dim() == 3 && x.stride(-1) == 1 ? x : x.reshape({tokens, heads, dim}).contiguous();
    auto y = at::empty(x.sizes(), x.options());
    ct::parallel_for(0, tokens, grain(heads * dim), [&](int64_t begin, int64_t end) {
        kernels().rotary(input.const_data_ptr(), input.stride(0), input.stride(1), y.mutable_data_ptr(), element(x),
                         data<float>(cos), data<float>(sin), heads, dim, sign, begin, end);
    });
    return y;
}

struct Rotary : Function<Rotary> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin) {
        context->save_for_backward({cos, sin});
        return rotate(x, cos, sin, 1);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        return {rotate(grads[0], saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
    }
};

// ---- SiLU(gate) * up

at::Tensor silu_mul_forward(const at::Tensor &gate_up) {
    const int64_t n = gate_up.size(-1) / 2, count = gate_up.numel() / (2 * n);
    const auto flat = gate_up.reshape({count, 2 * n});
    auto sizes = gate_up.sizes().vec();
    sizes.back() = n;
    auto y = at::empty(sizes, gate_up.options());
    ct::parallel_for(0, count, grain(4 * n), [&](int64_t begin, int64_t end) {
        kernels().silu_mul(rows(flat), rows(y, n), n, begin, end);
    });
    return y;
}

struct SiluMul : Function<SiluMul> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &gate_up) {
        context->save_for_backward({gate_up});
        return silu_mul_forward(gate_up);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto gate_up = context->get_saved_variables()[0];
        const int64_t n = gate_up.size(-1) / 2, count = gate_up.numel() / (2 * n);
        const auto flat = gate_up.reshape({count, 2 * n}), dy = grads[0].reshape({count, n});
        auto d = at::empty({count, 2 * n}, gate_up.options());
        ct::parallel_for(0, count, grain(4 * n), [&](int64_t begin, int64_t end) {
            kernels().silu_mul_backward(rows(flat), rows(dy), rows(d), n, begin, end);
        });
        return {d.view(gate_up.sizes())};
    }
};

} // namespace

extern "C" {

int ct_rms_norm(ct_tensor x, ct_tensor weight, double eps, CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(T(weight).dim() == 1 && T(weight).size(0) == T(x).size(-1), "RMSNorm: weight ", T(weight).sizes(),
                    " does not fit x ", T(x).sizes());
        const bool same = T(x).scalar_type() == T(weight).scalar_type();
        TORCH_CHECK(same || T(weight).scalar_type() == at::kFloat, "RMSNorm: a weight of ", T(weight).scalar_type(),
                    " must be float32 or like x, which is ", T(x).scalar_type());
        if (!on_cpu(T(x)) || !is_fused_type(T(x)))
            *out = wrap(same ? at::rms_norm(T(x), T(weight).sizes(), T(weight), eps)
                             : at::rms_norm(T(x).to(at::kFloat), T(weight).sizes(), T(weight), eps).to(T(x).scalar_type()));
        else if (needs_graph({T(x), T(weight)})) *out = wrap(RMSNorm::apply(T(x), T(weight), eps));
        else *out = wrap(rms_forward(T(x), T(weight), eps, nullptr));
    });
}

int ct_rotary(ct_tensor x, ct_tensor cos, ct_tensor sin, CT_RESULT) {
    return guarded(error, [&] {
        const int64_t tokens = T(x).numel() / (T(x).size(-1) * T(x).size(-2));
        TORCH_CHECK(T(cos).numel() == tokens * T(x).size(-1) / 2 && T(cos).sizes() == T(sin).sizes() && T(cos).is_contiguous() &&
                        T(sin).is_contiguous() && T(cos).scalar_type() == at::kFloat,
                    "rotary: cos ", T(cos).sizes(), " and sin ", T(sin).sizes(), " must be contiguous float32 [tokens, D/2] for x ",
                    T(x).sizes());
        TORCH_CHECK(!on_cpu(T(x)) || is_fused_type(T(x)), "rotary: x must be float32 or bfloat16, not ", T(x).scalar_type());
        *out = wrap(needs_graph({T(x)}) ? Rotary::apply(T(x), T(cos), T(sin)) : rotate(T(x), T(cos), T(sin), 1));
    });
}

int ct_silu_mul(ct_tensor gate_up, CT_RESULT) {
    return guarded(error, [&] {
        const auto &x = T(gate_up);
        TORCH_CHECK(x.size(-1) % 2 == 0, "silu_mul: the last dimension of ", x.sizes(), " must be even");
        if (!on_cpu(x) || !is_fused_type(x)) {
            const auto halves = x.chunk(2, -1);
            *out = wrap(at::silu(halves[0]) * halves[1]);
        } else *out = wrap(needs_graph({x}) ? SiluMul::apply(x) : silu_mul_forward(x));
    });
}

} // extern "C"
