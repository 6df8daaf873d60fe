#include "kernels.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
namespace ct::avx2 {
#include "kernels.inc"
} // namespace ct::avx2
#pragma clang attribute pop

namespace ct {
const KernelTable kernels_avx2 = {
    "avx2",           avx2::rms_norm,       avx2::rms_norm_backward, avx2::rotary,
    avx2::silu_mul,   avx2::silu_mul_backward, avx2::row_statistics, avx2::row_backward,
    avx2::attention,  avx2::attention_backward, avx2::cached_attention, avx2::accumulate,
    avx2::load_rows,  avx2::store_rows,     avx2::exponentials, avx2::quantized_linear};
}
