// The head: log-probabilities without the whole logits tensor.
#include "rows.hpp"

#include <algorithm>
#include <cmath>
#include <torch/csrc/autograd/custom_function.h>

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

struct Statistics {
    at::Tensor log_probs, entropies, log_sum_exps;
};

// What lies between the products and the softmax. A factor joins the temperature; a soft cap is a pass over the logits.
struct Distribution {
    double temperature, scale, soft_cap;
    // The factor inside the softmax.
    float factor() const { return static_cast<float>(soft_cap > 0 ? 1.0 / temperature : scale / temperature); }
    // The chunk's logits; float32 where there is a cap, so that no rounding comes between it and the softmax.
    at::Tensor logits(const at::Tensor &hidden, const at::Tensor &weight) const {
        auto products = at::linear(hidden, weight);
        if (soft_cap <= 0) return products;
        return products.to(at::kFloat).mul_(scale / soft_cap).tanh_().mul_(soft_cap);
    }
    // d logits / d products at capped logits; undefined without a cap, where `factor` has it.
    at::Tensor slope(const at::Tensor &logits) const {
        if (soft_cap <= 0) return {};
        return logits.div(soft_cap).square_().neg_().add_(1).mul_(scale);
    }
};

Statistics statistics(const at::Tensor &hidden, const at::Tensor &weight, const at::Tensor &targets,
                      const Distribution &distribution, int64_t chunk) {
    const int64_t count = hidden.size(0);
    const auto options = hidden.options().dtype(at::kFloat);
    Statistics s{at::empty({count}, options), at::empty({count}, options), at::empty({count}, options)};
    const float scale = distribution.factor();
    for (int64_t start = 0; start < count; start += chunk) {
        const int64_t size = std::min(chunk, count - start);
        auto logits = distribution.logits(hidden.narrow(0, start, size), weight);
        const auto target = targets.narrow(0, start, size);
        if (on_cpu(hidden)) {
            const auto *ids = data<int64_t>(target);
            auto *lse = s.log_sum_exps.mutable_data_ptr<float>() + start, *entropy = s.entropies.mutable_data_ptr<float>() + start,
                 *log_prob = s.log_probs.mutable_data_ptr<float>() + start;
            const int64_t columns = logits.size(1);
            const auto view = rows(logits);
            ct::parallel_for(0, size, 1, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const bool wide = view.element == Element::float32;
                    const void *row = wide ? static_cast<const void *>(static_cast<float *>(view.data) + i * columns)
                                           : static_cast<const void *>(static_cast<uint16_t *>(view.data) + i * columns);
                    kernels().row_statistics(row, view.element, columns, scale, lse + i, entropy + i);
                    const float logit = wide ? static_cast<const float *>(row)[ids[i]]
                                             : static_cast<float>(static_cast<const at::BFloat16 *>(row)[ids[i]]);
                    log_prob[i] = logit * scale - lse[i];
                }
            });
        } else {
            const auto wide = logits.to(at::kFloat).mul_(scale);
            const auto lse = at::logsumexp(wide, 1);
            const auto picked = wide.gather(1, target.unsqueeze(1)).squeeze(1);
            s.log_sum_exps.narrow(0, start, size).copy_(lse);
            s.log_probs.narrow(0, start, size).copy_(picked - lse);
            s.entropies.narrow(0, start, size).copy_(lse - (at::softmax(wide, 1) * wide).sum(1));
        }
    }
    return s;
}

struct TokenLogProbs : Function<TokenLogProbs> {
    static variable_list forward(AutogradContext *context, const at::Tensor &hidden, const at::Tensor &weight,
                                 const at::Tensor &targets, double temperature, double scale, double soft_cap,
                                 int64_t chunk) {
        auto s = statistics(hidden, weight, targets, {temperature, scale, soft_cap}, chunk);
        context->save_for_backward({hidden, weight, targets, s.log_sum_exps, s.entropies});
        context->saved_data["temperature"] = temperature;
        context->saved_data["scale"] = scale;
        context->saved_data["soft_cap"] = soft_cap;
        context->saved_data["chunk"] = chunk;
        return {s.log_probs, s.entropies};
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const auto &hidden = saved[0], &weight = saved[1], &targets = saved[2], &lse = saved[3], &entropy = saved[4];
        const Distribution distribution{context->saved_data["temperature"].toDouble(), context->saved_data["scale"].toDouble(),
                                        context->saved_data["soft_cap"].toDouble()};
        const int64_t chunk = context->saved_data["chunk"].toInt(), count = hidden.size(0);
        const float scale = distribution.factor();
        const auto zeros = at::zeros({count}, lse.options());
        const auto g = grads[0].defined() ? grads[0].contiguous() : zeros, ge = grads[1].defined() ? grads[1].contiguous() : zeros;
        auto dhidden = at::empty_like(hidden);
        at::Tensor dweight;
        for (int64_t start = 0; start < count; start += chunk) {
            const int64_t size = std::min(chunk, count - start);
            const auto h = hidden.narrow(0, start, size);
            auto logits = distribution.logits(h, weight);
            const auto slope = distribution.slope(logits);
            if (on_cpu(hidden)) {
                const auto view = rows(logits);
                const int64_t columns = logits.size(1);
                const auto *ids = data<int64_t>(targets) + start;
                const auto *l = data<float>(lse) + start, *e = data<float>(entropy) + start,
                           *gl = data<float>(g) + start, *gn = data<float>(ge) + start;
                ct::parallel_for(0, size, 1, [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                        void *row = view.element == Element::float32
                                        ? static_cast<void *>(static_cast<float *>(view.data) + i * columns)
                                        : static_cast<void *>(static_cast<uint16_t *>(view.data) + i * columns);
                        kernels().row_backward(row, view.element, columns, scale, l[i], e[i], ids[i], gl[i], gn[i]);
                    }
                });
            } else {
                auto slice = [&](const at::Tensor &x) { return x.narrow(0, start, size).unsqueeze(1); };
                const auto log_p = logits.to(at::kFloat).mul_(scale).sub_(slice(lse));
                auto d = log_p.exp().mul_(-(slice(g) + slice(ge) * (log_p + slice(entropy)))).mul_(scale);
                d.scatter_add_(1, slice(targets), slice(g) * scale);
                logits = slope.defined() ? d : d.to(hidden.scalar_type());
            }
            if (slope.defined()) logits = logits.mul_(slope).to(hidden.scalar_type());
            dhidden.narrow(0, start, size).copy_(at::matmul(logits, weight));
            if (context->needs_input_grad(1)) {
                if (!dweight.defined()) dweight = at::matmul(logits.t(), h);
                else dweight.addmm_(logits.t(), h);
            }
        }
        return {dhidden, dweight, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

} // namespace

extern "C" {

int ct_token_log_probs(ct_tensor hidden, ct_tensor weight, ct_tensor targets, double temperature, double scale,
                       double soft_cap, int64_t chunk, bool want_entropy, ct_tensor *log_probs, ct_tensor *entropies,
                       ct_message *error) {
    return guarded(error, [&] {
        const auto &h = T(hidden), &w = T(weight);
        TORCH_CHECK(h.dim() == 2 && w.dim() == 2 && h.size(1) == w.size(1) && T(targets).dim() == 1 &&
                        T(targets).size(0) == h.size(0) && T(targets).scalar_type() == at::kLong && temperature > 0 && chunk > 0 &&
                        scale > 0 && soft_cap >= 0,
                    "token log-probabilities: hidden ", h.sizes(), ", weight ", w.sizes(), ", targets ", T(targets).sizes(), " of ",
                    T(targets).scalar_type(), ", temperature ", temperature, ", scale ", scale, ", soft cap ", soft_cap,
                    ", chunk ", chunk, " do not fit");
        TORCH_CHECK(!on_cpu(h) || is_fused_type(h), "token log-probabilities: hidden must be float32 or bfloat16, not ",
                    h.scalar_type());
        if (on_cpu(h) && h.size(0) > 0) {
            const auto bounds = at::aminmax(T(targets));
            TORCH_CHECK(std::get<0>(bounds).item<int64_t>() >= 0 && std::get<1>(bounds).item<int64_t>() < w.size(0),
                        "token log-probabilities: a target lies outside the vocabulary of ", w.size(0));
        }
        const auto ids = T(targets).contiguous();
        if (needs_graph({h, w})) {
            const auto result = TokenLogProbs::apply(h.contiguous(), w, ids, temperature, scale, soft_cap, chunk);
            *log_probs = wrap(result[0]);
            if (want_entropy) *entropies = wrap(result[1]);
        } else {
            const auto s = statistics(h.contiguous(), w, ids, {temperature, scale, soft_cap}, chunk);
            *log_probs = wrap(s.log_probs);
            if (want_entropy) *entropies = wrap(s.entropies);
        }
    });
}

} // extern "C"
