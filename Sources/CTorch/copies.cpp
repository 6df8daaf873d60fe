// Copies of many tensors at once.
#include "ctorch_copies.h"
#include "shim.hpp"

#include <ATen/core/grad_mode.h>
#include <map>
#include <tuple>

using namespace ct;

extern "C" {

int ct_copy_each_(const ct_tensor *targets, const ct_tensor *sources, int count, ct_message *error) {
    return guarded(error, [&] {
        at::NoGradGuard no_grad;
        // The fused kernels take lists of one type and of equal strides; a list that mixes them falls back to one copy at a time.
        using Kind = std::tuple<at::ScalarType, at::ScalarType, int>;
        std::map<Kind, std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>>> fused;
        for (int i = 0; i < count; ++i) {
            const auto &target = T(targets[i]), &source = T(sources[i]);
            TORCH_CHECK(target.sizes() == source.sizes(), "copy of ", source.sizes(), " to ", target.sizes());
            if (target.is_cuda() && target.device() == source.device() && target.is_contiguous() && source.is_contiguous()) {
                auto &list = fused[{target.scalar_type(), source.scalar_type(), target.get_device()}];
                // Flat: views of one column, or of none, have strides of their own that mean nothing.
                list.first.push_back(target.view(-1));
                list.second.push_back(source.view(-1));
            } else {
                at::Tensor(target).copy_(source, /*non_blocking=*/true);
            }
        }
        for (auto &[kind, list] : fused) at::_foreach_copy_(list.first, list.second, /*non_blocking=*/true);
    });
}

uint64_t ct_address(ct_tensor tensor) { return reinterpret_cast<uint64_t>(T(tensor).const_data_ptr()); }

} // extern "C"
