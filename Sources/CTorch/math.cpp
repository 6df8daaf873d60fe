// Element-wise maths, reductions, products.
#include "shim.hpp"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

using namespace ct;

// The reductions under one signature.
namespace reduce {

at::Tensor std_unbiased(const at::Tensor &a, at::OptionalIntArrayRef dims, bool keepdim) {
    return at::std(a, dims, std::optional<at::Scalar>(1), keepdim);
}
at::Tensor var_unbiased(const at::Tensor &a, at::OptionalIntArrayRef dims, bool keepdim) {
    return at::var(a, dims, std::optional<at::Scalar>(1), keepdim);
}
at::Tensor sum(const at::Tensor &a, at::IntArrayRef dims, bool keepdim) { return at::sum(a, dims, keepdim); }
at::Tensor mean(const at::Tensor &a, at::IntArrayRef dims, bool keepdim) { return at::mean(a, dims, keepdim); }
at::Tensor amax(const at::Tensor &a, at::IntArrayRef dims, bool keepdim) { return at::amax(a, dims, keepdim); }
at::Tensor amin(const at::Tensor &a, at::IntArrayRef dims, bool keepdim) { return at::amin(a, dims, keepdim); }
at::Tensor logsumexp(const at::Tensor &a, at::IntArrayRef dims, bool keepdim) {
    return at::logsumexp(a, dims, keepdim);
}

} // namespace reduce

extern "C" {

CT_OP(ct_gelu, (ct_tensor a, bool tanh_approximation, CT_RESULT), at::gelu(T(a), tanh_approximation ? "tanh" : "none"))

int ct_unary(enum ct_unary_op op, ct_tensor a, CT_RESULT) {
    return guarded(error, [&] {
        switch (op) {
#define CT_CASE(name)                                                                                                 \
    case ct_unary_##name: *out = wrap(at::name(T(a))); return;
            CT_UNARY_OPS(CT_CASE)
#undef CT_CASE
        default: TORCH_CHECK(false, "no such unary op: ", static_cast<int>(op));
        }
    });
}

int ct_binary(enum ct_binary_op op, ct_tensor a, ct_tensor b, CT_RESULT) {
    return guarded(error, [&] {
        switch (op) {
#define CT_CASE(name)                                                                                                 \
    case ct_binary_##name: *out = wrap(at::name(T(a), T(b))); return;
            CT_BINARY_OPS(CT_CASE)
#undef CT_CASE
        default: TORCH_CHECK(false, "no such binary op: ", static_cast<int>(op));
        }
    });
}

int ct_scalar(enum ct_scalar_op op, ct_tensor a, double b, CT_RESULT) {
    return guarded(error, [&] {
        // An integer tensor stays one when the number is whole.
        const bool whole = at::isIntegralType(T(a).scalar_type(), true) && b == static_cast<double>(static_cast<int64_t>(b));
        const at::Scalar scalar = whole ? at::Scalar(static_cast<int64_t>(b)) : at::Scalar(b);
        switch (op) {
#define CT_CASE(name)                                                                                                 \
    case ct_scalar_##name: *out = wrap(at::name(T(a), scalar)); return;
            CT_SCALAR_OPS(CT_CASE)
#undef CT_CASE
        default: TORCH_CHECK(false, "no such scalar op: ", static_cast<int>(op));
        }
    });
}

int ct_clamp(ct_tensor a, const double *low, const double *high, CT_RESULT) {
    return guarded(error, [&] {
        auto bound = [](const double *value) {
            return value ? std::optional<at::Scalar>(*value) : std::optional<at::Scalar>();
        };
        *out = wrap(at::clamp(T(a), bound(low), bound(high)));
    });
}
CT_OP(ct_where, (ct_tensor condition, ct_tensor a, ct_tensor b, CT_RESULT), at::where(T(condition), T(a), T(b)))
CT_OP(ct_masked_fill, (ct_tensor a, ct_tensor mask, double value, CT_RESULT), at::masked_fill(T(a), T(mask), value))

int ct_reduce(enum ct_reduction op, ct_tensor a, const int64_t *dims, int count, bool keepdim, CT_RESULT) {
    return guarded(error, [&] {
        std::vector<int64_t> over(dims, dims + count);
        if (over.empty())
            for (int64_t i = 0; i < T(a).dim(); ++i) over.push_back(i);
        switch (op) {
#define CT_CASE(name)                                                                                                 \
    case ct_reduce_##name: *out = wrap(reduce::name(T(a), over, keepdim)); return;
            CT_REDUCTIONS(CT_CASE)
#undef CT_CASE
        default: TORCH_CHECK(false, "no such reduction: ", static_cast<int>(op));
        }
    });
}
CT_OP(ct_argmax, (ct_tensor a, int dim, bool keepdim, CT_RESULT), at::argmax(T(a), dim, keepdim))
CT_OP(ct_cumsum, (ct_tensor a, int dim, CT_RESULT), at::cumsum(T(a), dim))
CT_OP(ct_any, (ct_tensor a, CT_RESULT), at::any(T(a)))
CT_OP(ct_all, (ct_tensor a, CT_RESULT), at::all(T(a)))
CT_OP(ct_softmax, (ct_tensor a, int dim, CT_RESULT), at::softmax(T(a), dim))
CT_OP(ct_log_softmax, (ct_tensor a, int dim, CT_RESULT), at::log_softmax(T(a), dim))
int ct_sort(ct_tensor a, int dim, bool descending, ct_tensor *values, ct_tensor *indices, ct_message *error) {
    return guarded(error, [&] {
        auto [sorted, order] = at::sort(T(a), /*stable=*/true, dim, descending);
        *values = wrap(sorted);
        *indices = wrap(order);
    });
}
int ct_topk(ct_tensor a, int64_t k, int dim, ct_tensor *values, ct_tensor *indices, ct_message *error) {
    return guarded(error, [&] {
        auto [best, order] = at::topk(T(a), k, dim);
        *values = wrap(best);
        *indices = wrap(order);
    });
}
CT_DO(ct_item, (ct_tensor a, double *out, ct_message *error), *out = T(a).item<double>())
CT_DO(ct_item_int, (ct_tensor a, int64_t *out, ct_message *error), *out = T(a).item<int64_t>())
CT_DO(ct_equal, (ct_tensor a, ct_tensor b, bool *out, ct_message *error), *out = at::equal(T(a), T(b)))

int ct_l2_norm(const ct_tensor *tensors, int count, double *out, ct_message *error) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        // Squares are summed in double so that the norm does not depend on how parameters are grouped.
        at::Tensor total;
        for (int i = 0; i < count; ++i) {
            auto norm = at::linalg_vector_norm(T(tensors[i]), 2, std::nullopt, false, at::kFloat).to(at::kDouble).square();
            total = total.defined() ? total + norm : norm;
        }
        *out = total.defined() ? std::sqrt(total.item<double>()) : 0.0;
    });
}

CT_OP(ct_matmul, (ct_tensor a, ct_tensor b, CT_RESULT), at::matmul(T(a), T(b)))

int ct_pack_linear(ct_tensor weight, int64_t rows, CT_RESULT) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        static const auto op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                                   .typed<at::Tensor(const at::Tensor &, std::optional<c10::SymInt>)>();
        *out = wrap(op.call(T(weight).detach(), c10::SymInt(rows)));
    });
}

int ct_packed_linear(ct_tensor x, ct_tensor packed, ct_tensor bias, CT_RESULT) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        using Call = at::Tensor(const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &, std::string_view,
                                c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
        static const auto op =
            c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Call>();
        *out = wrap(op.call(T(x), T(packed), maybe(bias), "none", c10::List<std::optional<at::Scalar>>(), ""));
    });
}

int ct_fused_adamw_(const ct_tensor *params, const ct_tensor *grads, const ct_tensor *exp_avgs,
                    const ct_tensor *exp_avg_sqs, const ct_tensor *steps, int count, ct_adamw o, ct_message *error) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        for (int i = 0; i < count; ++i) T(steps[i]).add_(1);
        at::_fused_adamw_(list(params, count), list(grads, count), list(exp_avgs, count), list(exp_avg_sqs, count),
                          /*max_exp_avg_sqs=*/{}, list(steps, count), o.lr, o.beta1, o.beta2, o.weight_decay, o.eps,
                          /*amsgrad=*/false, /*maximize=*/false);
    });
}

} // extern "C"
