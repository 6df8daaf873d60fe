#include "kernels.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#define CT_NO_FMA
namespace ct::baseline {
#include "kernels.inc"
} // namespace ct::baseline

namespace ct {
const KernelTable kernels_baseline = {
    "baseline",           baseline::rms_norm,       baseline::rms_norm_backward, baseline::rotary,
    baseline::silu_mul,   baseline::silu_mul_backward, baseline::row_statistics, baseline::row_backward,
    baseline::attention,  baseline::attention_backward, baseline::cached_attention, baseline::accumulate,
    baseline::load_rows,  baseline::store_rows,     baseline::exponentials, baseline::quantized_linear};
}
