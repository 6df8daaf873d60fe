// Lifecycle, facts, creation, views, indexing.
#include "shim.hpp"

using namespace ct;

extern "C" {

void ct_string_free(ct_message text) { free(text); }
ct_message ct_message_copy(const char *text) { return copy(text); }
ct_tensor ct_alias(ct_tensor tensor) { return wrap(T(tensor)); }
void ct_free(ct_tensor tensor) { delete reinterpret_cast<at::Tensor *>(tensor); }

int ct_ndim(ct_tensor t) { return static_cast<int>(T(t).dim()); }
int64_t ct_size(ct_tensor t, int dim) { return T(t).sizes()[dim]; }
int64_t ct_stride(ct_tensor t, int dim) { return T(t).strides()[dim]; }
int64_t ct_numel(ct_tensor t) { return T(t).numel(); }
int64_t ct_element_size(ct_tensor t) { return T(t).element_size(); }
int ct_dtype(ct_tensor t) { return static_cast<int>(T(t).scalar_type()); }
int ct_device_type(ct_tensor t) { return T(t).is_cuda() ? 1 : 0; }
int ct_device_index(ct_tensor t) { return T(t).is_cuda() ? T(t).device().index() : 0; }
bool ct_is_contiguous(ct_tensor t) { return T(t).is_contiguous(); }
bool ct_is_pinned(ct_tensor t) { return T(t).is_pinned(); }
bool ct_requires_grad(ct_tensor t) { return T(t).requires_grad(); }
bool ct_is_same(ct_tensor a, ct_tensor b) { return T(a).is_same(T(b)); }
void *ct_data(ct_tensor t) { return T(t).data_ptr(); }
void *ct_storage_data(ct_tensor t) { return T(t).storage().mutable_data(); }

CT_OP(ct_empty, (const int64_t *sizes, int ndim, ct_options o, CT_RESULT), at::empty(ints(sizes, ndim), options(o)))
CT_OP(ct_full, (const int64_t *sizes, int ndim, double value, ct_options o, CT_RESULT),
      at::full(ints(sizes, ndim), value, options(o)))
CT_OP(ct_arange, (int64_t start, int64_t end, int64_t step, ct_options o, CT_RESULT),
      at::arange(start, end, step, options(o)))

int ct_from_bytes(const void *data, size_t bytes, const int64_t *sizes, int ndim, int dtype, CT_RESULT) {
    return guarded(error, [&] {
        auto result = at::empty(ints(sizes, ndim), at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype)));
        TORCH_CHECK(result.nbytes() == bytes, "shape ", result.sizes(), " of ", result.scalar_type(), " holds ",
                    result.nbytes(), " bytes, not ", bytes);
        if (bytes) memcpy(result.data_ptr(), data, bytes);
        *out = wrap(std::move(result));
    });
}

int ct_from_borrowed(void *data, const int64_t *sizes, int ndim, int dtype, void (*release)(void *), void *context,
                     CT_RESULT) {
    return guarded(error, [&] {
        *out = wrap(at::from_blob(
            data, ints(sizes, ndim), [release, context](void *) { release(context); },
            at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype))));
    });
}

CT_OP(ct_reshape, (ct_tensor a, const int64_t *sizes, int ndim, CT_RESULT), T(a).reshape(ints(sizes, ndim)))
CT_OP(ct_expand, (ct_tensor a, const int64_t *sizes, int ndim, CT_RESULT), T(a).expand(ints(sizes, ndim)))
CT_OP(ct_permute, (ct_tensor a, const int64_t *dims, int ndim, CT_RESULT), T(a).permute(ints(dims, ndim)))
CT_OP(ct_transpose, (ct_tensor a, int dim0, int dim1, CT_RESULT), T(a).transpose(dim0, dim1))
CT_OP(ct_narrow, (ct_tensor a, int dim, int64_t start, int64_t length, CT_RESULT), T(a).narrow(dim, start, length))
CT_OP(ct_select, (ct_tensor a, int dim, int64_t index, CT_RESULT), T(a).select(dim, index))
CT_OP(ct_unsqueeze, (ct_tensor a, int dim, CT_RESULT), T(a).unsqueeze(dim))
CT_OP(ct_squeeze, (ct_tensor a, int dim, CT_RESULT), T(a).squeeze(dim))
CT_OP(ct_flatten, (ct_tensor a, int from, int to, CT_RESULT), T(a).flatten(from, to))
CT_OP(ct_contiguous, (ct_tensor a, CT_RESULT), T(a).contiguous())
CT_OP(ct_clone, (ct_tensor a, CT_RESULT), T(a).clone())
CT_OP(ct_detach, (ct_tensor a, CT_RESULT), T(a).detach())
CT_OP(ct_cat, (const ct_tensor *tensors, int count, int dim, CT_RESULT), at::cat(list(tensors, count), dim))
CT_OP(ct_stack, (const ct_tensor *tensors, int count, int dim, CT_RESULT), at::stack(list(tensors, count), dim))
CT_OP(ct_to, (ct_tensor a, ct_options o, bool non_blocking, bool copy, CT_RESULT),
      T(a).to(device(o.device_type, o.device_index), static_cast<at::ScalarType>(o.dtype), non_blocking, copy))
CT_OP(ct_pin, (ct_tensor a, CT_RESULT), T(a).pin_memory())
CT_OP(ct_view_as, (ct_tensor a, int dtype, CT_RESULT), T(a).view(static_cast<at::ScalarType>(dtype)))
CT_OP(ct_unowned, (ct_tensor a, CT_RESULT),
      at::from_blob(T(a).data_ptr(), T(a).sizes(), T(a).strides(), [](void *) {}, T(a).options(), T(a).device()))

CT_OP(ct_index_select, (ct_tensor a, int dim, ct_tensor index, CT_RESULT), at::index_select(T(a), dim, T(index)))
CT_OP(ct_gather, (ct_tensor a, int dim, ct_tensor index, CT_RESULT), at::gather(T(a), dim, T(index)))
CT_OP(ct_scatter, (ct_tensor a, int dim, ct_tensor index, ct_tensor source, CT_RESULT),
      at::scatter(T(a), dim, T(index), T(source)))
CT_OP(ct_scatter_add, (ct_tensor a, int dim, ct_tensor index, ct_tensor source, CT_RESULT),
      at::scatter_add(T(a), dim, T(index), T(source)))
CT_OP(ct_masked_select, (ct_tensor a, ct_tensor mask, CT_RESULT), at::masked_select(T(a), T(mask)))
CT_OP(ct_nonzero, (ct_tensor a, CT_RESULT), at::nonzero(T(a)))
CT_OP(ct_embedding, (ct_tensor weight, ct_tensor ids, CT_RESULT), at::embedding(T(weight), T(ids)))
CT_OP(ct_tril, (ct_tensor a, int64_t diagonal, CT_RESULT), at::tril(T(a), diagonal))

CT_DO(ct_copy_, (ct_tensor target, ct_tensor source, bool non_blocking, ct_message *error),
      T(target).copy_(T(source), non_blocking))
CT_DO(ct_add_, (ct_tensor target, ct_tensor other, double alpha, ct_message *error),
      T(target).add_(T(other), alpha))
CT_DO(ct_mul_, (ct_tensor target, ct_tensor other, ct_message *error), T(target).mul_(T(other)))
CT_DO(ct_scale_, (ct_tensor target, double factor, ct_message *error), T(target).mul_(factor))
CT_DO(ct_fill_, (ct_tensor target, double value, ct_message *error), T(target).fill_(value))
CT_DO(ct_index_copy_, (ct_tensor target, int dim, ct_tensor index, ct_tensor source, ct_message *error),
      T(target).index_copy_(dim, T(index), T(source)))
CT_DO(ct_index_add_, (ct_tensor target, int dim, ct_tensor index, ct_tensor source, ct_message *error),
      T(target).index_add_(dim, T(index), T(source)))

} // extern "C"
