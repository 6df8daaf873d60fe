#pragma once
#include "ctorch.h"

#include <ATen/ATen.h>
#include <cstring>
#include <string>
#include <vector>

namespace ct {

inline at::Tensor &T(ct_tensor tensor) { return *reinterpret_cast<at::Tensor *>(tensor); }
inline ct_tensor wrap(at::Tensor tensor) { return reinterpret_cast<ct_tensor>(new at::Tensor(std::move(tensor))); }
inline c10::optional<at::Tensor> maybe(ct_tensor tensor) {
    return tensor ? c10::optional<at::Tensor>(T(tensor)) : c10::nullopt;
}
inline at::IntArrayRef ints(const int64_t *values, int count) { return at::IntArrayRef(values, count); }
inline std::vector<at::Tensor> list(const ct_tensor *tensors, int count) {
    std::vector<at::Tensor> all;
    all.reserve(count);
    for (int i = 0; i < count; ++i) all.push_back(T(tensors[i]));
    return all;
}
inline at::Device device(int type, int index) {
    return type == 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}
inline at::TensorOptions options(ct_options o) {
    return at::TensorOptions()
        .dtype(static_cast<at::ScalarType>(o.dtype))
        .device(device(o.device_type, o.device_index))
        .pinned_memory(o.pinned);
}

inline char *copy(const std::string &text) {
    char *owned = static_cast<char *>(malloc(text.size() + 1));
    if (owned) memcpy(owned, text.c_str(), text.size() + 1);
    return owned;
}

// Runs `body`, turning whatever it throws into an owned message: the one place where C++ exceptions end.
template <class Body> int guarded(ct_message *error, Body &&body) noexcept {
    try {
        body();
        return 0;
    } catch (const c10::Error &failure) {
        *error = copy(failure.what_without_backtrace());
    } catch (const std::exception &failure) {
        *error = copy(failure.what());
    } catch (...) {
        *error = copy("unknown C++ exception");
    }
    return -1;
}

} // namespace ct

// A function with one tensor result: CT_OP(name, (parameters), expression)
#define CT_OP(name, parameters, ...)                                                                                  \
    int name parameters {                                                                                             \
        return ct::guarded(error, [&] { *out = ct::wrap(__VA_ARGS__); });                                             \
    }
// A function with no result.
#define CT_DO(name, parameters, ...)                                                                                  \
    int name parameters {                                                                                             \
        return ct::guarded(error, [&] { __VA_ARGS__; });                                                              \
    }
