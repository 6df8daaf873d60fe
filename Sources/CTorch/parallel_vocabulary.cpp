// The head where ranks share the vocabulary: log-probabilities, entropies and their gradients from each rank's own logits.
#include "ctorch_parallel.h"
#include "parallel_layers.hpp"

#include <cmath>

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

struct Share {
    GroupPointer group;
    int64_t first;
    double temperature, scale, soft_cap;

    // What the softmax is of, float32 [T, own rows], and (with a soft cap) its slope in the products.
    at::Tensor terms(const at::Tensor &hidden, const at::Tensor &weight, at::Tensor *slope) const {
        auto x = at::linear(hidden, weight).to(at::kFloat);
        if (soft_cap > 0) {
            x = x.mul_(scale / soft_cap).tanh_();
            if (slope) *slope = x.square().neg_().add_(1).mul_(scale / temperature);
            return x.mul_(soft_cap / temperature);
        }
        return x.mul_(scale / temperature);
    }
    // Where the targets are among the own rows, 0 for others', and whether they are.
    std::pair<at::Tensor, at::Tensor> own(const at::Tensor &targets, int64_t rows) const {
        const auto local = targets - first;
        const auto is_own = at::logical_and(local >= 0, local < rows);
        return {local.masked_fill(at::logical_not(is_own), 0).unsqueeze(1), is_own};
    }
};

int64_t chunk_for(const at::Tensor &hidden, const at::Tensor &weight, int64_t chunk) {
    if (chunk > 0) return chunk;
    const int64_t most = (int64_t(1) << 28) / std::max<int64_t>(1, weight.size(0));
    return on_cpu(hidden) ? 256 : std::clamp<int64_t>(most / 256 * 256, 256, 8192);
}

struct Statistics {
    at::Tensor log_probs, entropies, log_sum_exps;
};

Statistics statistics(const Share &share, const at::Tensor &hidden, const at::Tensor &weight, const at::Tensor &targets, int64_t chunk) {
    const int64_t count = hidden.size(0), step = chunk_for(hidden, weight, chunk);
    const auto options = hidden.options().dtype(at::kFloat);
    // Of the own rows: the log of the sum of exponentials, the entropy of their softmax, and x at the target or 0.
    const auto own = at::zeros({1, 3, count}, options);
    if (weight.size(0) == 0) own.select(1, 0).fill_(-INFINITY);
    for (int64_t start = 0; start < count && weight.size(0) > 0; start += step) {
        const int64_t size = std::min(step, count - start);
        const auto x = share.terms(hidden.narrow(0, start, size), weight, nullptr);
        const auto [ids, is_own] = share.own(targets.narrow(0, start, size), weight.size(0));
        auto row = [&](int i) { return own.select(0, 0).select(0, i).narrow(0, start, size); };
        const auto lse = at::logsumexp(x, 1);
        row(0).copy_(lse);
        row(2).copy_(x.gather(1, ids).squeeze(1).masked_fill(at::logical_not(is_own), 0));
        const auto log_p = x - lse.unsqueeze(1);
        row(1).copy_(log_p.exp().mul_(log_p).sum(1).neg_());
    }
    const auto all = all_gathered(*share.group, own);  // [n, 3, T], summed in the order of the ranks on each of them
    const auto lses = all.select(1, 0), lse = at::logsumexp(lses, 0);
    // What a rank's rows weigh together; a rank without rows weighs nothing.
    const auto log_weights = (lses - lse.unsqueeze(0)).clamp_min_(-1e30);
    const auto entropies = (log_weights.exp() * (all.select(1, 1) - log_weights)).sum(0);
    return {all.select(1, 2).sum(0) - lse, entropies, lse};
}

struct TokenLogProbs : Function<TokenLogProbs> {
    static variable_list forward(AutogradContext *context, const at::Tensor &hidden, const at::Tensor &weight, const at::Tensor &targets,
                                 const Share &share, int64_t chunk) {
        const auto s = statistics(share, hidden, weight, targets, chunk);
        context->save_for_backward({hidden, weight, targets, s.log_sum_exps, s.entropies});
        keep(context, share.group);
        context->saved_data["first"] = share.first;
        context->saved_data["numbers"] = std::vector<double>{share.temperature, share.scale, share.soft_cap};
        context->saved_data["chunk"] = chunk;
        return {s.log_probs, s.entropies};
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const auto &hidden = saved[0], &weight = saved[1], &targets = saved[2], &lse = saved[3], &entropy = saved[4];
        const auto numbers = context->saved_data["numbers"].toDoubleVector();
        const Share share{kept(context), context->saved_data["first"].toInt(), numbers[0], numbers[1], numbers[2]};
        const int64_t count = hidden.size(0), step = chunk_for(hidden, weight, context->saved_data["chunk"].toInt());
        const auto zeros = at::zeros({count}, lse.options());
        const auto g = grads[0].defined() ? grads[0] : zeros, ge = grads[1].defined() ? grads[1] : zeros;
        const bool wants_weight = context->needs_input_grad(1);
        auto dhidden = at::zeros_like(hidden);
        auto dweight = wants_weight ? at::zeros_like(weight) : at::Tensor();
        for (int64_t start = 0; start < count && weight.size(0) > 0; start += step) {
            const int64_t size = std::min(step, count - start);
            auto part = [&](const at::Tensor &x) { return x.narrow(0, start, size).unsqueeze(1); };
            const auto h = hidden.narrow(0, start, size);
            at::Tensor slope;
            const auto log_p = share.terms(h, weight, &slope).sub_(part(lse));
            // d log p(target) / dx = [target] - p and d entropy / dx = -p (log p + entropy); 1 - p is formed before rounding.
            auto d = log_p.exp().mul_(-(part(g) + part(ge) * (log_p + part(entropy))));
            const auto [ids, is_own] = share.own(targets.narrow(0, start, size), weight.size(0));
            d.scatter_add_(1, ids, (g.narrow(0, start, size) * is_own).unsqueeze(1));
            d = (slope.defined() ? d.mul_(slope) : d.mul_(share.scale / share.temperature)).to(hidden.scalar_type());
            auto target = dhidden.narrow(0, start, size);
            at::mm_out(target, d, weight);
            if (wants_weight) dweight.addmm_(d.t(), h);
        }
        return {dhidden, dweight, at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

} // namespace

extern "C" {

int ct_parallel_token_log_probs(ct_group group, ct_tensor hidden, ct_tensor weight, ct_tensor targets, int64_t first, int64_t vocabulary,
                                double temperature, double scale, double soft_cap, int64_t chunk, ct_tensor *log_probs,
                                ct_tensor *entropies, ct_message *error) {
    return guarded(error, [&] {
        const auto &h = T(hidden), &w = T(weight);
        TORCH_CHECK(h.dim() == 2 && w.dim() == 2 && h.size(1) == w.size(1) && h.scalar_type() == w.scalar_type() &&
                        T(targets).dim() == 1 && T(targets).size(0) == h.size(0) && T(targets).scalar_type() == at::kLong && first >= 0 &&
                        first + w.size(0) <= vocabulary && temperature > 0 && chunk >= 0 && scale > 0 && soft_cap >= 0,
                    "token log-probabilities: hidden ", h.sizes(), ", weight ", w.sizes(), " from row ", first, " of ", vocabulary,
                    " on, targets ", T(targets).sizes(), " of ", T(targets).scalar_type(), ", temperature ", temperature, ", scale ",
                    scale, ", soft cap ", soft_cap, ", chunk ", chunk, " do not fit");
        if (on_cpu(h) && h.size(0) > 0) {
            const auto bounds = at::aminmax(T(targets));
            TORCH_CHECK(std::get<0>(bounds).item<int64_t>() >= 0 && std::get<1>(bounds).item<int64_t>() < vocabulary,
                        "token log-probabilities: a target lies outside the vocabulary of ", vocabulary);
        }
        const Share share{group->group, first, temperature, scale, soft_cap};
        const auto ids = T(targets).contiguous();
        if (needs_graph({h, w})) {
            const auto both = TokenLogProbs::apply(h.contiguous(), w, ids, share, chunk);
            *log_probs = wrap(both[0]);
            *entropies = wrap(both[1]);
        } else {
            const auto s = statistics(share, h.contiguous(), w, ids, chunk);
            *log_probs = wrap(s.log_probs);
            *entropies = wrap(s.entropies);
        }
    });
}

} // extern "C"
