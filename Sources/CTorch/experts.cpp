// Mixture of experts: rows sorted by expert, one matrix product an expert over its own rows, and the way back.
#include "graph.hpp"

#include <torch/csrc/autograd/custom_function.h>

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

// ---- the order of rows

// Counting sort: stable, one pass to count and one to place.
void sort_on_host(const at::Tensor &experts, int64_t count, at::Tensor &order, at::Tensor &place, at::Tensor &ends) {
    const auto flat = experts.contiguous();
    const int64_t pairs = flat.numel();
    const auto *expert = data<int64_t>(flat);
    order = at::empty({pairs}, flat.options());
    place = at::empty({pairs}, flat.options());
    ends = at::empty({count}, flat.options().dtype(at::kInt));
    std::vector<int64_t> next(count + 1, 0);
    for (int64_t i = 0; i < pairs; ++i) {
        TORCH_CHECK(expert[i] >= 0 && expert[i] < count, "route: expert ", expert[i], " of pair ", i, " is not one of the ",
                    count, " experts");
        ++next[expert[i] + 1];
    }
    auto *end = static_cast<int32_t *>(ends.mutable_data_ptr());
    for (int64_t e = 0; e < count; ++e) {
        next[e + 1] += next[e];
        end[e] = static_cast<int32_t>(next[e + 1]);
    }
    auto *ordered = static_cast<int64_t *>(order.mutable_data_ptr());
    auto *placed = static_cast<int64_t *>(place.mutable_data_ptr());
    for (int64_t i = 0; i < pairs; ++i) {
        const int64_t row = next[expert[i]]++;
        ordered[row] = i;
        placed[i] = row;
    }
}

// Nothing is read back to the host: the stream is not stopped.
void sort_on_device(const at::Tensor &experts, int64_t count, at::Tensor &order, at::Tensor &place, at::Tensor &ends) {
    const auto flat = experts.reshape({-1});
    const auto sorted = at::sort(flat, /*stable=*/true, 0, false);
    order = std::get<1>(sorted);
    place = at::empty_like(order).scatter_(0, order, at::arange(flat.numel(), order.options()));
    ends = at::searchsorted(std::get<0>(sorted), at::arange(count, flat.options()), /*out_int32=*/true, /*right=*/true);
}

// ---- rows of tokens to rows of experts, and the sum back

// y[t] = sum over k of weight[t,k] * rows[place[t*K+k]], in the order of k and in float32: a token's sum does not depend on its
// neighbours. Without weights they are 1.
template <class Scalar>
void gather_sum(const at::Tensor &rows, const float *weights, const int64_t *place, int64_t slots, at::Tensor &y) {
    const int64_t tokens = y.size(0), columns = y.size(1);
    const auto *source = data<Scalar>(rows);
    auto *target = static_cast<Scalar *>(y.mutable_data_ptr());
    ct::parallel_for(0, tokens, grain(slots * columns), [&](int64_t begin, int64_t end) {
        std::vector<float> sum(columns);
        for (int64_t t = begin; t < end; ++t) {
            std::fill(sum.begin(), sum.end(), 0.0f);
            for (int64_t k = 0; k < slots; ++k) {
                const Scalar *row = source + place[t * slots + k] * columns;
                const float weight = weights ? weights[t * slots + k] : 1.0f;
                for (int64_t c = 0; c < columns; ++c) sum[c] += weight * static_cast<float>(row[c]);
            }
            for (int64_t c = 0; c < columns; ++c) target[t * columns + c] = static_cast<Scalar>(sum[c]);
        }
    });
}

at::Tensor sum_back(const at::Tensor &rows, const at::Tensor &weights, const at::Tensor &place, int64_t slots) {
    const int64_t columns = rows.size(1), tokens = place.numel() / slots;
    if (!on_cpu(rows) || !is_fused_type(rows)) {
        const auto wide = rows.index_select(0, place).view({tokens, slots, columns}).to(at::kFloat);
        return (weights.defined() ? wide * weights.unsqueeze(-1) : wide).sum(1).to(rows.scalar_type());
    }
    auto y = at::empty({tokens, columns}, rows.options());
    const auto flat = rows.contiguous();
    const auto wide = weights.defined() ? weights.contiguous() : weights;
    const float *factors = wide.defined() ? data<float>(wide) : nullptr;
    if (rows.scalar_type() == at::kFloat) gather_sum<float>(flat, factors, data<int64_t>(place), slots, y);
    else gather_sum<at::BFloat16>(flat, factors, data<int64_t>(place), slots, y);
    return y;
}

at::Tensor token_of(const at::Tensor &order, int64_t slots) { return order.div(slots, "floor"); }

struct Dispatch : Function<Dispatch> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &order,
                              const at::Tensor &place) {
        context->save_for_backward({place});
        context->saved_data["slots"] = order.numel() / std::max<int64_t>(1, x.size(0));
        return x.index_select(0, token_of(order, order.numel() / std::max<int64_t>(1, x.size(0))));
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto place = context->get_saved_variables()[0];
        return {sum_back(grads[0], at::Tensor(), place, context->saved_data["slots"].toInt()), at::Tensor(), at::Tensor()};
    }
};

struct Combine : Function<Combine> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &rows, const at::Tensor &weights,
                              const at::Tensor &order, const at::Tensor &place) {
        context->save_for_backward({rows, weights, order, place});
        return sum_back(rows, weights, place, weights.size(1));
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const auto &rows = saved[0], &weights = saved[1], &order = saved[2], &place = saved[3];
        // The gradient of each sorted row before its weight.
        const auto dy = grads[0].index_select(0, token_of(order, weights.size(1)));
        at::Tensor drows, dweights;
        if (context->needs_input_grad(0)) {
            const auto factors = weights.reshape({-1}).index_select(0, order).unsqueeze(1);
            drows = (dy.to(at::kFloat) * factors).to(rows.scalar_type());
        }
        if (context->needs_input_grad(1)) {
            const auto products = (dy.to(at::kFloat) * rows.to(at::kFloat)).sum(1);
            dweights = products.index_select(0, place).view(weights.sizes());
        }
        return {drows, dweights, at::Tensor(), at::Tensor()};
    }
};

// ---- one product an expert

// libtorch's grouped kernel takes bfloat16 whose rows begin at multiples of 16 bytes; all else is a loop.
bool has_grouped_kernel(const at::Tensor &rows, const at::Tensor &weight) {
    return rows.device().is_cuda() && rows.scalar_type() == at::kBFloat16 && weight.scalar_type() == at::kBFloat16 &&
           weight.size(1) % 8 == 0 && weight.size(2) % 8 == 0 && rows.size(0) > 0;
}

// body(expert, its rows) for every expert that has any, or for all of them.
template <class Body> void each_expert(const at::Tensor &ends, bool empty_too, Body &&body) {
    const auto host = ends.to(at::kCPU);
    const auto *end = data<int32_t>(host);
    int64_t start = 0;
    for (int64_t e = 0; e < host.numel(); ++e) {
        if (empty_too || end[e] > start) body(e, start, end[e] - start);
        start = end[e];
    }
}

// rows [R,K] times matrices[e] [K,N] over the rows of e
at::Tensor product(const at::Tensor &rows, const at::Tensor &matrices, const at::Tensor &ends, bool grouped) {
    if (grouped) return at::_grouped_mm(rows.contiguous(), matrices, ends);
    auto y = at::empty({rows.size(0), matrices.size(2)}, rows.options());
    each_expert(ends, false, [&](int64_t e, int64_t start, int64_t length) {
        auto slice = y.narrow(0, start, length);
        at::mm_out(slice, rows.narrow(0, start, length), matrices.select(0, e));
    });
    return y;
}

at::Tensor weight_gradient(const at::Tensor &dy, const at::Tensor &rows, const at::Tensor &weight, const at::Tensor &ends,
                           bool grouped) {
    if (grouped) return at::_grouped_mm(dy.contiguous().t(), rows.contiguous(), ends);
    auto dw = at::empty(weight.sizes(), weight.options());
    each_expert(ends, true, [&](int64_t e, int64_t start, int64_t length) {
        auto slice = dw.select(0, e);
        if (length == 0) slice.zero_();
        else at::mm_out(slice, dy.narrow(0, start, length).t(), rows.narrow(0, start, length));
    });
    return dw;
}

struct GroupedLinearNode : LayerNode {
    KeptInput rows; // only where the weight learns
    at::Tensor weight, ends;
    bool grouped = false;

    variable_list apply(variable_list &&grads) override {
        at::NoGradGuard no_grad;
        variable_list results(2);
        if (!grads[0].defined()) return results;
        if (task_should_compute_output(0)) results[0] = product(grads[0], weight, ends, grouped);
        if (task_should_compute_output(1)) results[1] = weight_gradient(grads[0], rows.get(), weight, ends, grouped);
        return results;
    }
    void release_variables() override { rows.release(); }
};

at::Tensor grouped_linear(const at::Tensor &rows, const at::Tensor &weight, const at::Tensor &ends) {
    const bool grouped = has_grouped_kernel(rows, weight);
    auto node = needs_graph({rows, weight}) ? make_node<GroupedLinearNode>({rows, weight}) : nullptr;
    at::NoGradGuard no_grad;
    const auto y = product(rows, weight.transpose(1, 2), ends, grouped);
    if (!node) return y;
    if (weight.requires_grad()) node->rows = KeptInput(rows);
    node->weight = weight.detach();
    node->ends = ends;
    node->grouped = grouped;
    return result_of(node, y);
}

} // namespace

extern "C" {

int ct_route(ct_tensor experts, int64_t count, ct_tensor *order, ct_tensor *place, ct_tensor *ends, ct_message *error) {
    return guarded(error, [&] {
        const auto &chosen = T(experts);
        TORCH_CHECK(chosen.dim() == 2 && chosen.scalar_type() == at::kLong && count > 0,
                    "route: experts must be int64 [T, K] and their count positive, not ", chosen.scalar_type(), chosen.sizes(),
                    " and ", count);
        TORCH_CHECK(chosen.numel() < std::numeric_limits<int32_t>::max(), "route: too many rows: ", chosen.numel());
        at::Tensor ordered, placed, ended;
        if (on_cpu(chosen)) sort_on_host(chosen, count, ordered, placed, ended);
        else sort_on_device(chosen, count, ordered, placed, ended);
        *order = wrap(ordered);
        *place = wrap(placed);
        *ends = wrap(ended);
    });
}

int ct_dispatch(ct_tensor x, ct_tensor order, ct_tensor place, CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(T(x).dim() == 2 && T(x).size(0) > 0 && T(order).numel() % T(x).size(0) == 0 &&
                        T(order).numel() == T(place).numel(),
                    "dispatch: ", T(order).numel(), " rows are no multiple of the tokens of ", T(x).sizes());
        *out = wrap(Dispatch::apply(T(x), T(order), T(place)));
    });
}

int ct_combine(ct_tensor rows, ct_tensor weights, ct_tensor order, ct_tensor place, CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(T(rows).dim() == 2 && T(weights).dim() == 2 && T(weights).scalar_type() == at::kFloat &&
                        T(weights).numel() == T(rows).size(0) && T(place).numel() == T(rows).size(0),
                    "combine: rows ", T(rows).sizes(), " need a float32 weight each, not ", T(weights).scalar_type(),
                    T(weights).sizes());
        *out = wrap(Combine::apply(T(rows), T(weights), T(order), T(place)));
    });
}

int ct_grouped_linear(ct_tensor rows, ct_tensor weight, ct_tensor ends, CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(T(rows).dim() == 2 && T(weight).dim() == 3 && T(rows).size(1) == T(weight).size(2) &&
                        T(ends).numel() == T(weight).size(0) && T(rows).scalar_type() == T(weight).scalar_type(),
                    "grouped linear: rows ", T(rows).scalar_type(), T(rows).sizes(), " and weight ",
                    T(weight).scalar_type(), T(weight).sizes(), " do not fit ", T(ends).numel(), " experts");
        *out = wrap(grouped_linear(T(rows), T(weight), T(ends)));
    });
}

} // extern "C"
