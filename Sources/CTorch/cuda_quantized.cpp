// Launches of cuda/quantized.cu.
#include "cuda_driver.hpp"
#include "quantized.hpp"

#include <algorithm>

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char text[] = {
#embed "cuda/quantized.cu"
};

std::vector<std::string> options(int bits) { return {"-DBITS=" + std::to_string(bits)}; }

CudaKernel &kernel(c10::Device device, int bits, const char *name) {
    return CudaKernel::get(device, "quantized.cu", text, sizeof text, options(bits), name);
}

// A kernel for up to `rows` rows; each of its blocks has `tiles` tiles of 16 outputs, and `along` warps share the inputs.
struct Product {
    int rows, tiles, side, along;
    const char *name;
};
Product product(int64_t rows, int bits) {
    if (rows <= 8) return {8, bits == 8 ? 1 : 2, 1, 8, "product_8"};
    if (rows <= 16) return {16, 2, 1, 8, "product_16"};
    if (rows <= 32) return {32, 4, 2, 4, "product_32"};
    return {64, 8, 2, 2, "product_64"};
}

// The most rows for which that is faster than to expand the weight and leave the product to cuBLAS.
int64_t most_rows(int bits) { return bits == 8 ? 96 : 48; }
// Blocks that are worth cutting the inputs for: about two on each multiprocessor.
constexpr int64_t enough_blocks = 256;

} // namespace

at::Tensor dequantize_tiles(const QuantizedWeight &w) {
    auto weight = at::empty({w.outputs, w.inputs}, w.packed.options().dtype(at::kBFloat16));
    const void *codes = w.packed.const_data_ptr(), *scales = w.scales.const_data_ptr(),
               *zeros = w.zeros.defined() ? w.zeros.const_data_ptr() : nullptr;
    void *out = weight.mutable_data_ptr();
    int inputs = static_cast<int>(w.inputs), padded = static_cast<int>(w.scales.size(1)), group = static_cast<int>(w.group);
    long long places = w.outputs / 16 * (w.inputs / 64);
    void *arguments[] = {&codes, &scales, &zeros, &out, &inputs, &padded, &group, &places};
    kernel(w.packed.device(), w.bits, "dequantize")
        .launch(w.packed.device(), static_cast<unsigned>((places + 7) / 8), 1, 1, 256, 0, arguments);
    return weight;
}

bool has_quantized_product(const at::Tensor &x, const QuantizedWeight &w) {
    // Rows of x are read 16 bytes at a time, and a block of 64 inputs has one scale.
    return x.is_cuda() && x.scalar_type() == at::kBFloat16 && x.size(0) <= most_rows(w.bits) && x.size(0) > 0 && x.stride(1) == 1 &&
           x.stride(0) % 8 == 0 && x.storage_offset() % 8 == 0 && w.group % 64 == 0;
}

at::Tensor quantized_product(const at::Tensor &x, const QuantizedWeight &w, const c10::optional<at::Tensor> &bias) {
    const int64_t count = x.size(0);
    const auto form = product(count, w.bits);
    const int64_t chunks = (count + form.rows - 1) / form.rows, tiles = w.outputs / 16;
    const int64_t across = (tiles + form.tiles - 1) / form.tiles;
    int64_t pieces = 1;
    while (across * chunks * pieces * 2 <= enough_blocks && w.inputs / 64 >= pieces * 2 * form.along) pieces *= 2;
    auto y = at::empty({count, w.outputs}, x.options());
    at::Tensor partial;
    if (pieces > 1) partial = at::empty({pieces, count, w.outputs}, x.options().dtype(at::kFloat));
    const auto added = bias ? bias->to(at::kBFloat16).contiguous() : at::Tensor();
    const void *codes = w.packed.const_data_ptr(), *scales = w.scales.const_data_ptr(), *from = x.const_data_ptr(),
               *zeros = w.zeros.defined() ? w.zeros.const_data_ptr() : nullptr,
               *offset = added.defined() ? added.const_data_ptr() : nullptr;
    void *to = y.mutable_data_ptr(), *sums = partial.defined() ? partial.mutable_data_ptr() : nullptr;
    int rows = static_cast<int>(count), outputs = static_cast<int>(w.outputs), inputs = static_cast<int>(w.inputs),
        padded = static_cast<int>(w.scales.size(1)), group = static_cast<int>(w.group), parts = static_cast<int>(pieces);
    long long stride = x.stride(0);
    void *arguments[] = {&codes, &scales, &zeros,   &from,   &offset, &to,    &sums,
                         &rows,  &outputs, &inputs, &padded, &group,  &stride};
    const int64_t shared = form.along * form.tiles * 16 * (form.rows + 1) * 4;
    kernel(x.device(), w.bits, form.name)
        .launch(x.device(), static_cast<unsigned>(across), parts, static_cast<unsigned>(chunks), form.side * form.along * 32,
                static_cast<unsigned>(shared), arguments);
    if (pieces > 1) {
        long long all = count * w.outputs;
        void *joining[] = {&sums, &offset, &to, &parts, &outputs, &all};
        kernel(x.device(), w.bits, "join_pieces")
            .launch(x.device(), static_cast<unsigned>((all + 255) / 256), 1, 1, 256, 0, joining);
    }
    return y;
}

int compile_quantized_kernels(const std::string &architecture) {
    for (int bits : {4, 8}) compile_cuda("quantized.cu", text, sizeof text, options(bits), architecture);
    return 2;
}

} // namespace ct
