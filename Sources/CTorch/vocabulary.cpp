// The head: log-probabilities, entropies and their gradients without the whole logits tensor.
#include "head_cuda.hpp"
#include "rows.hpp"

#include <algorithm>
#include <cmath>
#include <torch/csrc/autograd/custom_function.h>

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

// What lies between the products and the softmax. A factor joins the temperature; a soft cap is a pass over the logits, or on CUDA
// part of the kernels.
struct Distribution {
    double temperature, scale, soft_cap;
    // The factor inside the softmax.
    float factor() const { return static_cast<float>(soft_cap > 0 ? 1.0 / temperature : scale / temperature); }
    HeadTransform transform() const {
        return {factor(), static_cast<float>(soft_cap), soft_cap > 0 ? static_cast<float>(scale / soft_cap) : 0};
    }
    // Logits of products; float32 where there is a cap, so that no rounding comes between it and the softmax.
    at::Tensor logits(const at::Tensor &products) const {
        if (soft_cap <= 0) return products;
        return products.to(at::kFloat).mul_(scale / soft_cap).tanh_().mul_(soft_cap);
    }
    // d logits / d products at capped logits; undefined without a cap, where `factor` has it.
    at::Tensor slope(const at::Tensor &logits) const {
        if (soft_cap <= 0) return {};
        return logits.div(soft_cap).square_().neg_().add_(1).mul_(scale);
    }
};

// A chunk's products on devices other than those that have kernels: plain operations, or the CPU's rows.
struct PlainRows {
    const Distribution &distribution;
    at::Tensor logits, targets;

    void statistics(const HeadStatistics &out) const {
        const float scale = distribution.factor();
        if (!on_cpu(logits)) {
            const auto wide = logits.to(at::kFloat).mul(scale);
            const auto lse = at::logsumexp(wide, 1);
            out.log_sum_exps.copy_(lse);
            out.log_probs.copy_(wide.gather(1, targets.unsqueeze(1)).squeeze(1) - lse);
            out.entropies.copy_(lse - (at::softmax(wide, 1) * wide).sum(1));
            return;
        }
        auto *log_prob = out.log_probs.mutable_data_ptr<float>(), *lse = out.log_sum_exps.mutable_data_ptr<float>(),
             *entropy = out.entropies.mutable_data_ptr<float>();
        const auto *ids = data<int64_t>(targets);
        const bool wide = logits.scalar_type() == at::kFloat;
        ct::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const void *row = at_row(i);
                kernels().row_statistics(row, element(logits), logits.size(1), scale, lse + i, entropy + i);
                const float logit = wide ? static_cast<const float *>(row)[ids[i]]
                                         : static_cast<float>(static_cast<const at::BFloat16 *>(row)[ids[i]]);
                log_prob[i] = logit * scale - lse[i];
            }
        });
    }

    // d loss / d products, of `type`; spoils the logits.
    at::Tensor gradient(const HeadStatistics &of, const at::Tensor &g, const at::Tensor &ge, at::ScalarType type) const {
        const float scale = distribution.factor();
        const auto slope = distribution.slope(logits);
        at::Tensor d;
        if (on_cpu(logits)) {
            const auto *ids = data<int64_t>(targets);
            const auto *l = data<float>(of.log_sum_exps), *e = data<float>(of.entropies), *gl = data<float>(g),
                       *gn = data<float>(ge);
            ct::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i)
                    kernels().row_backward(at_row(i), element(logits), logits.size(1), scale, l[i], e[i], ids[i], gl[i], gn[i]);
            });
            d = logits;
        } else {
            const auto log_p = logits.to(at::kFloat).mul(scale).sub_(of.log_sum_exps.unsqueeze(1));
            d = log_p.exp().mul_(-(g.unsqueeze(1) + ge.unsqueeze(1) * (log_p + of.entropies.unsqueeze(1)))).mul_(scale);
            d.scatter_add_(1, targets.unsqueeze(1), g.unsqueeze(1) * scale);
        }
        return (slope.defined() ? d.mul_(slope) : d).to(type);
    }

  private:
    void *at_row(int64_t i) const {
        return static_cast<char *>(const_cast<void *>(logits.const_data_ptr())) + i * logits.size(1) * logits.element_size();
    }
};

// Products of a chunk of hidden states with the weight, in memory that all chunks share.
class Products {
  public:
    Products(const at::Tensor &hidden, const at::Tensor &weight, int64_t chunk) : hidden(hidden), weight(weight) {
        const int64_t count = hidden.size(0), vocabulary = weight.size(0);
        if (chunk == 0) {
            // On a GPU products of fewer rows than some thousands run below its rate, and more gain nothing.
            const int64_t most = 5 * (int64_t(1) << 28) / (std::max<int64_t>(1, vocabulary) * weight.element_size());
            chunk = on_cpu(hidden) ? 256 : std::clamp<int64_t>(most / 256 * 256, 256, 8192);
        }
        const int64_t parts = std::max<int64_t>(1, (count + chunk - 1) / chunk);
        size = std::max<int64_t>(1, (count + parts - 1) / parts);
        // Rows that begin at multiples of 16 bytes.
        if (!on_cpu(hidden)) buffer = at::empty({std::min(size, count), (vocabulary + 7) / 8 * 8}, hidden.options());
    }

    int64_t count() const { return hidden.size(0); }
    int64_t rows(int64_t start) const { return std::min(size, count() - start); }
    int64_t step() const { return size; }
    at::Tensor hidden_rows(int64_t start) const { return hidden.narrow(0, start, rows(start)); }

    at::Tensor at(int64_t start) {
        if (!buffer.defined()) return at::linear(hidden_rows(start), weight);
        auto products = buffer.narrow(0, 0, rows(start)).narrow(1, 0, weight.size(0));
        at::mm_out(products, hidden_rows(start), weight.t());
        return products;
    }

  private:
    const at::Tensor hidden, weight;
    int64_t size;
    at::Tensor buffer;
};

HeadStatistics empty_statistics(const at::Tensor &hidden) {
    const auto options = hidden.options().dtype(at::kFloat);
    auto make = [&] { return at::empty({hidden.size(0)}, options); };
    return {make(), make(), make()};
}

HeadStatistics statistics(const at::Tensor &hidden, const at::Tensor &weight, const at::Tensor &targets,
                          const Distribution &distribution, int64_t chunk) {
    const auto all = empty_statistics(hidden);
    Products products(hidden, weight, chunk);
    for (int64_t start = 0; start < products.count(); start += products.step()) {
        const int64_t size = products.rows(start);
        const auto x = products.at(start), ids = targets.narrow(0, start, size);
        if (has_head_kernels(x)) head_statistics(x, distribution.transform(), ids, all.of(start, size));
        else PlainRows{distribution, distribution.logits(x), ids}.statistics(all.of(start, size));
    }
    return all;
}

// Where gradients of the weight come together: in the leaf's own gradient where it has one, else in a new tensor.
class WeightGrad {
  public:
    // `wanted`: false where nobody asks.
    WeightGrad(const at::Tensor &weight, bool wanted) : wanted(wanted) {
        if (wanted && weight.is_leaf() && weight.grad().defined() && weight.grad().scalar_type() == weight.scalar_type()) {
            sum = weight.grad();
            is_leafs = true;
        }
    }
    // d loss / d products [T,V] times hidden [T,C].
    void add(const at::Tensor &d, const at::Tensor &hidden) {
        if (!wanted) return;
        if (sum.defined()) sum.addmm_(d.t(), hidden);
        else sum = at::mm(d.t(), hidden);
    }
    // What the leaf's gradient has not got; undefined where it has it all.
    at::Tensor rest() const { return is_leafs ? at::Tensor() : sum; }

  private:
    bool wanted, is_leafs = false;
    at::Tensor sum;
};

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
        const auto &hidden = saved[0], &weight = saved[1], &targets = saved[2];
        const HeadStatistics all{{}, saved[3], saved[4]};
        const Distribution distribution{context->saved_data["temperature"].toDouble(), context->saved_data["scale"].toDouble(),
                                        context->saved_data["soft_cap"].toDouble()};
        const auto zeros = at::zeros({hidden.size(0)}, saved[3].options());
        const auto g = grads[0].defined() ? grads[0].contiguous() : zeros, ge = grads[1].defined() ? grads[1].contiguous() : zeros;
        auto dhidden = at::empty_like(hidden);
        WeightGrad dweight(weight, context->needs_input_grad(1));
        Products products(hidden, weight, context->saved_data["chunk"].toInt());
        for (int64_t start = 0; start < products.count(); start += products.step()) {
            const int64_t size = products.rows(start);
            auto part = [&](const at::Tensor &x) { return x.narrow(0, start, size); };
            const HeadStatistics of{{}, part(all.log_sum_exps), part(all.entropies)};
            auto d = products.at(start);
            if (has_head_kernels(d)) head_gradient_(d, distribution.transform(), part(targets), of, part(g), part(ge));
            else d = PlainRows{distribution, distribution.logits(d), part(targets)}.gradient(of, part(g), part(ge), hidden.scalar_type());
            auto target = part(dhidden);
            at::mm_out(target, d, weight);
            dweight.add(d, products.hidden_rows(start));
        }
        return {dhidden, dweight.rest(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

void check(const at::Tensor &h, const at::Tensor &w, const at::Tensor &targets, const Distribution &d, int64_t chunk) {
    TORCH_CHECK(h.dim() == 2 && w.dim() == 2 && h.size(1) == w.size(1) && h.scalar_type() == w.scalar_type() && targets.dim() == 1 &&
                    targets.size(0) == h.size(0) && targets.scalar_type() == at::kLong && d.temperature > 0 && chunk >= 0 &&
                    d.scale > 0 && d.soft_cap >= 0,
                "token log-probabilities: hidden ", h.sizes(), " ", h.scalar_type(), ", weight ", w.sizes(), " ", w.scalar_type(),
                ", targets ", targets.sizes(), " of ", targets.scalar_type(), ", temperature ", d.temperature, ", scale ", d.scale,
                ", soft cap ", d.soft_cap, ", chunk ", chunk, " do not fit");
    TORCH_CHECK(!on_cpu(h) || is_fused_type(h), "token log-probabilities: hidden must be float32 or bfloat16, not ",
                h.scalar_type());
    if (on_cpu(h) && h.size(0) > 0) {
        const auto bounds = at::aminmax(targets);
        TORCH_CHECK(std::get<0>(bounds).item<int64_t>() >= 0 && std::get<1>(bounds).item<int64_t>() < w.size(0),
                    "token log-probabilities: a target lies outside the vocabulary of ", w.size(0));
    }
}

} // namespace

extern "C" {

int ct_token_log_probs(ct_tensor hidden, ct_tensor weight, ct_tensor targets, double temperature, double scale,
                       double soft_cap, int64_t chunk, bool want_entropy, ct_tensor *log_probs, ct_tensor *entropies,
                       ct_message *error) {
    return guarded(error, [&] {
        const auto &h = T(hidden), &w = T(weight);
        check(h, w, T(targets), {temperature, scale, soft_cap}, chunk);
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

int ct_token_loss(ct_tensor raw_hidden, ct_tensor raw_weight, ct_tensor raw_targets, ct_tensor log_prob_grads, ct_tensor entropy_grads,
                  double temperature, double scale, double soft_cap, int64_t chunk, ct_tensor *log_probs, ct_tensor *entropies,
                  ct_tensor *hidden_grad, ct_message *error) {
    return guarded(error, [&] {
        const at::NoGradGuard no_grad;
        const Distribution distribution{temperature, scale, soft_cap};
        const auto hidden = T(raw_hidden).detach().contiguous(), targets = T(raw_targets).contiguous();
        const auto &weight = T(raw_weight);
        check(hidden, weight, targets, distribution, chunk);
        TORCH_CHECK(!weight.requires_grad() || weight.is_leaf(), "token loss: the gradient of a weight that is computed from others "
                                                                 "takes token log-probabilities and a backward pass");
        auto factors = [&](ct_tensor x) {
            if (!x) return at::zeros({hidden.size(0)}, hidden.options().dtype(at::kFloat));
            TORCH_CHECK(T(x).dim() == 1 && T(x).size(0) == hidden.size(0) && T(x).scalar_type() == at::kFloat &&
                            T(x).device() == hidden.device(),
                        "token loss: gradients ", T(x).sizes(), " of ", T(x).scalar_type(), " must be float32 [", hidden.size(0),
                        "] on the hidden states' device");
            return T(x).detach().contiguous();
        };
        const auto g = factors(log_prob_grads), ge = factors(entropy_grads);
        const auto all = empty_statistics(hidden);
        auto dhidden = at::empty_like(hidden);
        WeightGrad dweight(weight, weight.requires_grad());
        Products products(hidden, weight.detach(), chunk);
        for (int64_t start = 0; start < products.count(); start += products.step()) {
            const int64_t size = products.rows(start);
            auto part = [&](const at::Tensor &x) { return x.narrow(0, start, size); };
            const auto of = all.of(start, size);
            auto d = products.at(start);
            if (has_head_kernels(d)) {
                head_both_(d, distribution.transform(), part(targets), of, part(g), part(ge));
            } else {
                const PlainRows rows{distribution, distribution.logits(d), part(targets)};
                rows.statistics(of);
                d = rows.gradient(of, part(g), part(ge), hidden.scalar_type());
            }
            auto target = part(dhidden);
            at::mm_out(target, d, weight.detach());
            dweight.add(d, products.hidden_rows(start));
        }
        if (const auto rest = dweight.rest(); rest.defined()) {
            auto &grad = weight.mutable_grad();
            if (grad.defined()) grad.add_(rest);
            else grad = rest;
        }
        *log_probs = wrap(all.log_probs);
        *entropies = wrap(all.entropies);
        *hidden_grad = wrap(dhidden);
    });
}

} // extern "C"
