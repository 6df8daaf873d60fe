#include "head_cuda.hpp"

#include "cuda_driver.hpp"

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char head_text[] = {
#embed "cuda/head.cu"
};

constexpr unsigned threads = 512;

const void *address(const at::Tensor &x) { return x.defined() ? x.const_data_ptr() : nullptr; }

// What every entry takes first; `rest` are its own.
void launch(const char *name, const at::Tensor &products, HeadTransform transform, const at::Tensor &targets,
            std::initializer_list<const void *> rest) {
    TORCH_INTERNAL_ASSERT(products.dim() == 2 && products.stride(1) == 1 && targets.is_contiguous());
    if (products.size(0) == 0) return;
    const void *rows = products.mutable_data_ptr(), *ids = targets.const_data_ptr();
    long long stride = products.stride(0);
    int columns = static_cast<int>(products.size(1));
    std::vector<void *> arguments{&rows, &stride, &columns, &transform.factor, &transform.cap, &transform.into_cap, &ids};
    for (const auto &one : rest) arguments.push_back(const_cast<void **>(&one));
    const std::string full = std::string("head_") + name + (products.scalar_type() == at::kFloat ? "_float32" : "_bfloat16");
    CudaKernel::get(products.device(), "head.cu", head_text, sizeof head_text, {}, full.c_str())
        .launch(products.device(), static_cast<unsigned>(products.size(0)), 1, 1, threads, 0, arguments.data());
}

} // namespace

bool has_head_kernels(const at::Tensor &like) {
    return like.is_cuda() && (like.scalar_type() == at::kBFloat16 || like.scalar_type() == at::kFloat);
}

void head_statistics(const at::Tensor &products, HeadTransform transform, const at::Tensor &targets, const HeadStatistics &out) {
    launch("statistics", products, transform, targets, {address(out.log_probs), address(out.log_sum_exps), address(out.entropies)});
}

void head_gradient_(const at::Tensor &products, HeadTransform transform, const at::Tensor &targets, const HeadStatistics &of,
                    const at::Tensor &g, const at::Tensor &ge) {
    launch("gradient", products, transform, targets,
           {address(of.log_sum_exps), address(of.entropies), address(g), address(ge)});
}

void head_both_(const at::Tensor &products, HeadTransform transform, const at::Tensor &targets, const HeadStatistics &out,
                const at::Tensor &g, const at::Tensor &ge) {
    launch("both", products, transform, targets,
           {address(out.log_probs), address(out.log_sum_exps), address(out.entropies), address(g), address(ge)});
}

void compile_head(const std::string &architecture) { compile_cuda("head.cu", head_text, sizeof head_text, {}, architecture); }

} // namespace ct
