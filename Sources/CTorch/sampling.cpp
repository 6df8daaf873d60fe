// From logits to tokens: adjustments, draws, and the likeliest tokens.
#include "cuda_sampling.hpp"
#include "rows.hpp"

#include <algorithm>
#include <cmath>

using namespace ct;

namespace {

// How one row's token is drawn, on the CPU.
struct RowTerms {
    double temperature, top_p, min_p, uniform;
    int64_t top_k;
};

// Draws from one row. `weights` is scratch of the vocabulary's size.
int64_t draw(const float *logits, int64_t n, const RowTerms &s, std::vector<float> &weights, std::vector<int64_t> &order,
             float *log_prob) {
    const auto &k = kernels();
    float lse, entropy;
    if (s.temperature <= 0) {
        const int64_t best = std::max_element(logits, logits + n) - logits;
        k.row_statistics(logits, Element::float32, n, 1, &lse, &entropy);
        *log_prob = logits[best] - lse;
        TORCH_CHECK(std::isfinite(lse), "sampling: the logits are not finite");
        return best;
    }
    const float scale = static_cast<float>(1.0 / s.temperature);
    k.row_statistics(logits, Element::float32, n, scale, &lse, &entropy);
    TORCH_CHECK(std::isfinite(lse), "sampling: the logits are not finite");
    weights.resize(n);
    double total = k.exponentials(logits, n, scale, lse, weights.data());
    const bool filtered = (s.top_k > 0 && s.top_k < n) || s.top_p < 1 || s.min_p > 0;
    int64_t choice = -1;
    if (filtered) {
        // vLLM's order: min-p against the largest probability, then top-k, then top-p over what is left.
        order.clear();
        const float floor = s.min_p > 0 ? static_cast<float>(s.min_p) * *std::max_element(weights.begin(), weights.end()) : 0;
        for (int64_t i = 0; i < n; ++i)
            if (weights[i] >= floor) order.push_back(i);
        auto heavier = [&](int64_t a, int64_t b) { return weights[a] != weights[b] ? weights[a] > weights[b] : a < b; };
        if (s.top_k > 0 && s.top_k < static_cast<int64_t>(order.size())) {
            std::nth_element(order.begin(), order.begin() + s.top_k, order.end(), heavier);
            order.resize(s.top_k);
        }
        std::sort(order.begin(), order.end(), heavier);
        total = 0;
        for (auto i : order) total += weights[i];
        if (s.top_p < 1) {
            double kept = 0;
            size_t count = 0;
            while (count < order.size() && (count == 0 || kept < s.top_p * total)) kept += weights[order[count++]];
            order.resize(count);
            total = kept;
        }
        double remaining = s.uniform * total;
        for (auto i : order) {
            if (weights[i] > 0) choice = i;
            if ((remaining -= weights[i]) < 0) break;
        }
    } else {
        double remaining = s.uniform * total;
        for (int64_t i = 0; i < n; ++i) {
            if (weights[i] > 0) choice = i;
            if ((remaining -= weights[i]) < 0) break;
        }
    }
    TORCH_CHECK(choice >= 0, "sampling: no token has a positive probability");
    *log_prob = logits[choice] * scale - lse;
    return choice;
}

// A float of a tensor of either width.
double number(const at::Tensor &x, int64_t i) {
    return x.scalar_type() == at::kDouble ? data<double>(x)[i] : data<float>(x)[i];
}

void check_column(const char *call, const char *name, const at::Tensor &x, int64_t count, const at::Device &device,
                  std::initializer_list<at::ScalarType> types) {
    TORCH_CHECK(x.dim() == 1 && x.size(0) == count && x.is_contiguous() && x.device() == device &&
                    std::find(types.begin(), types.end(), x.scalar_type()) != types.end(),
                call, ": ", name, " must be a contiguous [", count, "] of ", *types.begin(), " on ", device, ", not ", x.sizes(), " of ",
                x.scalar_type(), " on ", x.device());
}

void draw_on_cpu(const at::Tensor &logits, const SamplingTensors &terms, int32_t *tokens, float *log_probs) {
    const auto wide = logits.to(at::kFloat).contiguous();
    const float *values = data<float>(wide);
    const int64_t n = logits.size(1);
    ct::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
        std::vector<float> weights;
        std::vector<int64_t> order;
        for (int64_t b = begin; b < end; ++b) {
            RowTerms row{number(terms.temperatures, b), 1, 0, number(terms.uniforms, b), 0};
            if (terms.top_k.defined()) {
                row.top_k = data<int32_t>(terms.top_k)[b];
                row.top_p = number(terms.top_p, b);
                row.min_p = number(terms.min_p, b);
            }
            tokens[b] = static_cast<int32_t>(draw(values + b * n, n, row, weights, order, log_probs + b));
        }
    });
}

template <class Scalar>
void adjust_on_cpu(at::Tensor &logits, const at::Tensor &rows, const at::Tensor &tokens, const at::Tensor &factors,
                   const at::Tensor &offsets) {
    auto *values = static_cast<Scalar *>(logits.mutable_data_ptr());
    const int64_t batch = logits.size(0), vocabulary = logits.size(1);
    for (int64_t i = 0; i < rows.size(0); ++i) {
        const int64_t row = data<int32_t>(rows)[i], token = data<int32_t>(tokens)[i];
        if (row < 0) continue;
        TORCH_CHECK(row < batch && token >= 0 && token < vocabulary, "adjust: entry ", i, " names row ", row, ", token ", token,
                    " of logits ", logits.sizes());
        auto &at = values[row * logits.stride(0) + token * logits.stride(1)];
        const float x = static_cast<float>(at), factor = data<float>(factors)[i];
        at = static_cast<Scalar>((x > 0 ? x / factor : x * factor) + data<float>(offsets)[i]);
    }
}

} // namespace

extern "C" {

int ct_draw(ct_tensor logits, ct_sampling sampling, ct_tensor tokens, ct_tensor log_probs, ct_message *error) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        const auto &x = T(logits);
        TORCH_CHECK(x.dim() == 2 && x.size(1) > 0, "draw: logits must be [B, V], not ", x.sizes());
        const int64_t batch = x.size(0);
        SamplingTensors terms{T(sampling.temperatures), T(sampling.uniforms), {}, {}, {}};
        // Numbers that decide a draw are float64 on the CPU, where it costs nothing, and float32 for the kernels.
        auto column = [&](const char *name, const at::Tensor &tensor) {
            if (on_cpu(x)) check_column("draw", name, tensor, batch, x.device(), {at::kDouble, at::kFloat});
            else check_column("draw", name, tensor, batch, x.device(), {at::kFloat});
        };
        column("temperatures", terms.temperatures);
        column("uniforms", terms.uniforms);
        if (sampling.top_k) {
            terms.top_k = T(sampling.top_k), terms.top_p = T(sampling.top_p), terms.min_p = T(sampling.min_p);
            check_column("draw", "topK", terms.top_k, batch, x.device(), {at::kInt});
            column("topP", terms.top_p);
            column("minP", terms.min_p);
        }
        check_column("draw", "tokens", T(tokens), batch, x.device(), {at::kInt});
        check_column("draw", "logProbs", T(log_probs), batch, x.device(), {at::kFloat});
        if (batch == 0) return;
        if (on_cpu(x))
            draw_on_cpu(x, terms, static_cast<int32_t *>(T(tokens).mutable_data_ptr()),
                        static_cast<float *>(T(log_probs).mutable_data_ptr()));
        else sample_rows(x, terms, T(tokens), T(log_probs));
    });
}

int ct_adjust_(ct_tensor logits, ct_tensor rows, ct_tensor tokens, ct_tensor factors, ct_tensor offsets, ct_message *error) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        auto &x = T(logits);
        TORCH_CHECK(x.dim() == 2 && is_fused_type(x), "adjust: logits must be [B, V] of float32 or bfloat16, not ", x.sizes(), " of ",
                    x.scalar_type());
        TORCH_CHECK(T(rows).dim() == 1, "adjust: rows must be one-dimensional, not ", T(rows).sizes());
        const int64_t count = T(rows).size(0);
        check_column("adjust", "rows", T(rows), count, x.device(), {at::kInt});
        check_column("adjust", "tokens", T(tokens), count, x.device(), {at::kInt});
        check_column("adjust", "factors", T(factors), count, x.device(), {at::kFloat});
        check_column("adjust", "offsets", T(offsets), count, x.device(), {at::kFloat});
        if (count == 0 || x.size(0) == 0) return;
        if (!on_cpu(x)) adjust_rows(x, T(rows), T(tokens), T(factors), T(offsets));
        else if (x.scalar_type() == at::kFloat) adjust_on_cpu<float>(x, T(rows), T(tokens), T(factors), T(offsets));
        else adjust_on_cpu<at::BFloat16>(x, T(rows), T(tokens), T(factors), T(offsets));
    });
}

int ct_top_log_probs(ct_tensor logits, ct_tensor temperatures_or_null, ct_tensor chosen, int64_t count, ct_tensor *tokens,
                     ct_tensor *log_probs, ct_tensor *chosen_log_probs, ct_tensor *ranks, ct_message *error) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        const auto &x = T(logits);
        TORCH_CHECK(x.dim() == 2 && count >= 0 && count <= x.size(1), "top log-probabilities: ", count, " of logits ", x.sizes());
        const int64_t batch = x.size(0);
        check_column("top log-probabilities", "chosen", T(chosen), batch, x.device(), {at::kInt, at::kLong});
        auto wide = x.to(at::kFloat);
        if (temperatures_or_null) {
            const auto t = T(temperatures_or_null);
            check_column("top log-probabilities", "temperatures", t, batch, x.device(), {at::kFloat, at::kDouble});
            wide = wide * at::where(t > 0, t.reciprocal(), at::ones_like(t)).to(at::kFloat).unsqueeze(1);
        }
        const auto log_p = at::log_softmax(wide, 1);
        const auto best = at::topk(log_p, count, 1);
        const auto picked = log_p.gather(1, T(chosen).to(at::kLong).unsqueeze(1));
        *log_probs = wrap(std::get<0>(best));
        *tokens = wrap(std::get<1>(best).to(at::kInt));
        *chosen_log_probs = wrap(picked.squeeze(1));
        *ranks = wrap((log_p > picked).sum(1).add_(1).to(at::kInt));
    });
}

} // extern "C"
