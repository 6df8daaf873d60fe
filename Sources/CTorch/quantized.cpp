// Weights rounded to a few bits: made from any weight, laid out for the kernels of its device, and multiplied with.
#include "quantized.hpp"

#include "cuda_kernels.hpp"
#include "rows.hpp"

using namespace ct;
using namespace at::indexing;

namespace {

constexpr int64_t panel = 32;

int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// ---- rounding

// One scale an output; codes are 128 more than what they stand for.
void round_to_bytes(const at::Tensor &w, const at::Tensor &codes, const at::Tensor &scales) {
    const auto largest = w.abs().amax(1);
    const auto scale = at::where(largest == 0, at::ones_like(largest), largest / 127);
    codes.copy_((w / scale.unsqueeze(1)).round_().clamp_(-127, 127).add_(128));
    scales.copy_(scale.unsqueeze(0));
}

// Groups w [N, G, group] to codes 0...15, the range of a group shrunk as far as that lowers its squared error: a few outliers cut
// off are worth a finer grid for the rest.
void round_to_nibbles(const at::Tensor &w, const at::Tensor &codes, const at::Tensor &scales, const at::Tensor &zeros) {
    const auto low = w.amin(2).clamp_max_(0), high = w.amax(2).clamp_min_(0);
    const auto empty = low == high;
    at::Tensor best;
    for (const double share : {1.0, 0.95, 0.9, 0.85, 0.8, 0.75}) {
        const auto scale = at::where(empty, at::ones_like(low), (high - low) * (share / 15));
        const auto zero = (low * -share / scale).round_().clamp_(0, 15);
        const auto code = (w / scale.unsqueeze(2)).round_().add_(zero.unsqueeze(2)).clamp_(0, 15);
        const auto error = (code - zero.unsqueeze(2)).mul_(scale.unsqueeze(2)).sub_(w).square_().sum(2);
        if (!best.defined()) {
            best = error;
            codes.copy_(code);
            scales.copy_(scale.t());
            zeros.copy_(zero.t());
            continue;
        }
        const auto better = error < best;
        best = at::where(better, error, best);
        codes.copy_(at::where(better.unsqueeze(2), code.to(at::kByte), codes));
        scales.copy_(at::where(better.t(), scale.t(), scales));
        zeros.copy_(at::where(better.t(), zero.t().to(at::kByte), zeros));
    }
}

// ---- layouts

// Codes [N, K] in panels of 32 outputs (kernels_quantized.inc).
at::Tensor in_panels(const at::Tensor &codes, int bits) {
    const int64_t outputs = codes.size(0), inputs = codes.size(1), padded = rounded_up(outputs, panel);
    const int64_t width = bits == 8 ? inputs : rounded_up(inputs, 8);
    const auto whole = at::constant_pad_nd(codes, {0, width - inputs, 0, padded - outputs});
    if (bits == 8) return whole.view({padded / panel, panel, inputs}).permute({0, 2, 1}).contiguous();
    const auto pairs = whole.view({padded / panel, panel, width / 8, 4, 2}).permute({0, 2, 1, 3, 4});
    return pairs.select(4, 0).bitwise_or(pairs.select(4, 1).bitwise_left_shift(4)).contiguous();
}
at::Tensor from_panels(const at::Tensor &packed, int64_t outputs, int64_t inputs, int bits) {
    if (bits == 8)
        return packed.permute({0, 2, 1}).reshape({-1, inputs}).narrow(0, 0, outputs);
    return at::stack({packed.bitwise_and(15), packed.bitwise_right_shift(4)}, 4)
        .permute({0, 2, 1, 3, 4})
        .reshape({packed.size(0) * panel, -1})
        .narrow(0, 0, outputs)
        .narrow(1, 0, inputs);
}

// The dimensions of codes [N, K] as the fragments of a matrix instruction cut them (quantized.cu): tile of 16 outputs, its half,
// output in it; block of 64 inputs, its half, thread, fragment, pair, element.
constexpr int64_t tile_axes = 9;
std::array<int64_t, tile_axes> tile_sizes(int64_t outputs, int64_t inputs) {
    return {outputs / 16, 2, 8, inputs / 64, 2, 4, 2, 2, 2};
}
std::vector<int64_t> tile_order(int bits) {
    if (bits == 8) return {0, 3, 4, 2, 5, 6, 7, 1, 8};
    return {0, 3, 2, 5, 4, 6, 8, 7, 1};
}
at::Tensor in_tiles(const at::Tensor &codes, int bits) {
    const auto order = tile_order(bits);
    const auto cut = codes.view(tile_sizes(codes.size(0), codes.size(1))).permute(order);
    if (bits == 8) return cut.contiguous();
    return cut.select(8, 0).bitwise_or(cut.select(8, 1).bitwise_left_shift(4)).contiguous();
}
at::Tensor from_tiles(const at::Tensor &packed, int64_t outputs, int64_t inputs, int bits) {
    const auto whole = bits == 8 ? packed : at::stack({packed.bitwise_and(15), packed.bitwise_right_shift(4)}, 8);
    const auto order = tile_order(bits);
    std::vector<int64_t> back(order.size());
    for (size_t i = 0; i < order.size(); ++i) back[order[i]] = static_cast<int64_t>(i);
    return whole.permute(back).reshape({outputs, inputs});
}

// ---- products

// Scales or zeros [G, padded] as one number a weight, [N, K].
at::Tensor per_weight(const at::Tensor &terms, const QuantizedWeight &w) {
    const auto rows = terms.narrow(1, 0, w.outputs).t().to(at::kFloat);
    return rows.repeat_interleave(w.group, 1).narrow(1, 0, w.inputs);
}

// Panels have four dimensions at most.
bool is_tiled(const QuantizedWeight &w) { return w.packed.dim() > 4; }

at::Tensor expanded(const QuantizedWeight &w, at::ScalarType type) {
    if (w.packed.is_cuda() && type == at::kBFloat16 && w.group % 64 == 0) return dequantize_tiles(w);
    const auto codes = is_tiled(w) ? from_tiles(w.packed, w.outputs, w.inputs, w.bits)
                                   : from_panels(w.packed, w.outputs, w.inputs, w.bits);
    auto values = codes.to(at::kFloat);
    if (w.zeros.defined()) values.sub_(per_weight(w.zeros, w));
    else values.sub_(128);
    return values.mul_(per_weight(w.scales, w)).to(type);
}

at::Tensor cpu_product(const at::Tensor &x, const QuantizedWeight &w, const c10::optional<at::Tensor> &bias) {
    const auto wide = x.to(at::kFloat).contiguous();
    const int64_t rows = wide.size(0), padded = w.scales.size(1);
    auto y = bias ? at::constant_pad_nd(bias->to(at::kFloat), {0, padded - w.outputs}).expand({rows, padded}).contiguous()
                  : at::zeros({rows, padded}, wide.options());
    const QuantizedPanels panels{data<uint8_t>(w.packed), data<float>(w.scales),
                                 w.zeros.defined() ? data<uint8_t>(w.zeros) : nullptr,
                                 w.inputs, w.group, padded, w.bits};
    const float *from = data<float>(wide);
    auto *to = static_cast<float *>(y.mutable_data_ptr());
    ct::parallel_for(0, padded / panel, grain(panel * w.inputs), [&](int64_t begin, int64_t end) {
        kernels().quantized_linear(from, rows, panels, to, padded, begin, end);
    });
    return y.narrow(1, 0, w.outputs).to(x.scalar_type()).contiguous();
}

void check(const QuantizedWeight &w) {
    TORCH_CHECK(w.bits == 4 || w.bits == 8, "quantised weight: ", w.bits, " bits; 4 and 8 are supported");
    TORCH_CHECK(w.group > 0 && (w.group % panel == 0 || w.group == w.inputs), "quantised weight: a group of ", w.group,
                " inputs is no multiple of ", panel, " and not all ", w.inputs);
}

QuantizedWeight quantized(ct_quantized w) {
    return {T(w.packed), T(w.scales), w.zeros_or_null ? T(w.zeros_or_null) : at::Tensor(), w.outputs, w.inputs, w.group, w.bits};
}

} // namespace

extern "C" {

int ct_quantize(ct_tensor weight, int bits, int64_t group, ct_tensor *codes, ct_tensor *scales, ct_tensor *zeros,
                ct_message *error) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        const auto &w = T(weight);
        TORCH_CHECK(w.dim() == 2 && w.is_floating_point(), "quantize: a weight [N, K] of floating-point numbers, not ",
                    w.scalar_type(), w.sizes());
        const int64_t outputs = w.size(0), inputs = w.size(1);
        check({{}, {}, {}, outputs, inputs, group, bits});
        TORCH_CHECK(bits == 4 || group == inputs, "quantize: 8 bits have one scale an output");
        const int64_t groups = (inputs + group - 1) / group, padded = rounded_up(outputs, panel);
        auto all_codes = at::empty({outputs, inputs}, w.options().dtype(at::kByte));
        auto all_scales = at::zeros({groups, padded}, w.options().dtype(at::kFloat));
        auto all_zeros = at::zeros({groups, padded}, w.options().dtype(at::kByte));
        // Rows at a time, so that the copies in float32 stay small beside the weight, and on the CPU in its cache.
        const int64_t numbers = int64_t(1) << (on_cpu(w) ? 18 : 24);
        const int64_t step = std::max<int64_t>(1, numbers / std::max<int64_t>(1, inputs));
        for (int64_t row = 0; row < outputs; row += step) {
            const int64_t count = std::min(step, outputs - row);
            const auto part = w.narrow(0, row, count).detach().to(at::kFloat);
            const auto part_codes = all_codes.narrow(0, row, count), part_scales = all_scales.narrow(1, row, count),
                       part_zeros = all_zeros.narrow(1, row, count);
            if (bits == 8) {
                round_to_bytes(part, part_codes, part_scales);
                continue;
            }
            const int64_t whole = inputs / group, left = inputs - whole * group;
            const auto round = [&](int64_t first, int64_t groups, int64_t size) {
                const auto cut = part.narrow(1, first * group, groups * size).contiguous().view({count, groups, size});
                auto cut_codes = at::empty({count, groups, size}, all_codes.options());
                round_to_nibbles(cut, cut_codes, part_scales.narrow(0, first, groups), part_zeros.narrow(0, first, groups));
                part_codes.narrow(1, first * group, groups * size).copy_(cut_codes.view({count, groups * size}));
            };
            if (whole > 0) round(0, whole, group);
            if (left > 0) round(whole, 1, left);
        }
        *codes = wrap(all_codes);
        *scales = wrap(all_scales);
        *zeros = bits == 4 ? wrap(all_zeros) : nullptr;
    });
}

int ct_pack_codes(ct_tensor codes, int bits, bool tiles, CT_RESULT) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        const auto &c = T(codes);
        TORCH_CHECK(c.dim() == 2 && c.scalar_type() == at::kByte && c.is_contiguous(), "pack: contiguous codes uint8 [N, K], not ",
                    c.scalar_type(), c.sizes());
        TORCH_CHECK(bits == 4 || bits == 8, "pack: codes of 4 or 8 bits, not ", bits);
        TORCH_CHECK(!tiles || (c.size(0) % 16 == 0 && c.size(1) % 64 == 0), "pack: codes ", c.sizes(),
                    " do not make whole tiles of 16 by 64");
        *out = wrap(tiles ? in_tiles(c, bits) : in_panels(c, bits));
    });
}

int ct_dequantize(ct_quantized weight, int dtype, CT_RESULT) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        const auto w = quantized(weight);
        check(w);
        *out = wrap(expanded(w, static_cast<at::ScalarType>(dtype)));
    });
}

int ct_quantized_linear(ct_tensor x, ct_quantized weight, ct_tensor bias, CT_RESULT) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        const auto w = quantized(weight);
        check(w);
        TORCH_CHECK(is_tiled(w) == w.packed.is_cuda() && T(x).dim() == 2 && T(x).size(1) == w.inputs && T(x).device() == w.packed.device(), "quantised product: x ",
                    T(x).sizes(), " does not fit a weight of ", w.inputs, " inputs");
        if (on_cpu(T(x))) *out = wrap(cpu_product(T(x), w, maybe(bias)));
        else if (has_quantized_product(T(x), w)) *out = wrap(quantized_product(T(x), w, maybe(bias)));
        else *out = wrap(at::linear(T(x), expanded(w, T(x).scalar_type()), maybe(bias)));
    });
}

} // extern "C"
