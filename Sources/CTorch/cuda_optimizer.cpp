// AdamW on CUDA: the kernels of cuda/optimizer.cu over lists of tensors, and states that stay in host memory, streamed through the
// device while earlier ones are computed with.
#include "cuda_driver.hpp"
#include "optimizer.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <cstring>
#include <dlfcn.h>
#include <map>

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char codes_text[] = {
#embed "cuda/moment_codes.inc"
};
constexpr char optimizer_text[] = {
#embed "cuda/optimizer.cu"
};

constexpr int64_t chunk = 16384, moment_block = 256;
constexpr unsigned threads = 256;

const std::string &text() {
    static const std::string whole = "#define MOMENT_CODE __device__ __forceinline__\n#define LEADING_ZEROS __clz\n"
                                     "#define FLOAT_BITS __float_as_uint\n" +
                                     std::string(codes_text, sizeof codes_text) + "\n" +
                                     std::string(optimizer_text, sizeof optimizer_text);
    return whole;
}

// What a kernel is compiled for.
struct Kind {
    bool half_weight, master, half_grad;
    Moments moments;
    bool is_stochastic;
    auto operator<=>(const Kind &) const = default;

    std::vector<std::string> options() const {
        auto define = [](const char *name, int value) { return std::string("-D") + name + "=" + std::to_string(value); };
        return {define("WEIGHT_BF16", half_weight), define("MASTER", master),         define("GRAD_BF16", half_grad),
                define("MOMENTS", static_cast<int>(moments)), define("STOCHASTIC", is_stochastic), define("CHUNK", chunk)};
    }
};

Kind kind(const AdamWTensor &t, bool is_stochastic) {
    const bool half = t.weight.scalar_type() == at::kBFloat16;
    const auto stored = moments(t);
    return {half, t.master.defined(), t.grad.scalar_type() == at::kBFloat16, stored,
            is_stochastic && (stored == Moments::bfloat16 || (half && !t.master.defined()))};
}

CudaKernel &kernel(c10::Device device, const Kind &kind, const char *name) {
    return CudaKernel::get(device, "optimizer.cu", text().data(), text().size(), kind.options(), name);
}

// As in cuda/optimizer.cu.
struct Entry {
    void *weight;
    float *master;
    const void *grad;
    void *first, *second;
    float *first_scale, *second_scale;
    long long count, first_chunk, offset;
    int slot;
    float weight_decay;
};

void *place(const at::Tensor &x, int64_t element) {
    return x.defined() ? static_cast<char *>(x.mutable_data_ptr()) + element * x.element_size() : nullptr;
}

// Host values on the device, by way of pinned memory: nobody waits.
template <class Value> at::Tensor upload(const std::vector<Value> &values, c10::Device device) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(Value));
    auto host = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    memcpy(host.mutable_data_ptr(), values.data(), bytes);
    return host.to(device, at::kByte, /*non_blocking=*/true);
}

int64_t chunks(int64_t count) { return (count + chunk - 1) / chunk; }

Entry entry(const AdamWTensor &t, int64_t &first_chunk) {
    Entry e{place(t.weight, 0), static_cast<float *>(place(t.master, 0)), place(t.grad, 0), place(t.first, 0), place(t.second, 0),
            static_cast<float *>(place(t.first_scale, 0)), static_cast<float *>(place(t.second_scale, 0)), t.weight.numel(),
            first_chunk, 0, static_cast<int>(t.slot), static_cast<float>(t.weight_decay)};
    first_chunk += chunks(e.count);
    return e;
}

void launch_apply(c10::Device device, const Kind &k, void *entries, int count, int64_t chunk_count, const AdamWState &state,
                  const ct_adamw_step &o) {
    if (chunk_count == 0) return;
    const void *steps = state.steps.const_data_ptr(), *corrections = state.corrections.const_data_ptr(),
               *control = state.control.const_data_ptr();
    float lr = static_cast<float>(o.lr), beta1 = static_cast<float>(o.beta1), beta2 = static_cast<float>(o.beta2),
          eps = static_cast<float>(o.eps);
    unsigned long long seed = o.seed;
    void *arguments[] = {&entries, &count, &steps, &corrections, &control, &lr, &beta1, &beta2, &eps, &seed};
    kernel(device, k, "apply").launch(device, static_cast<unsigned>(chunk_count), 1, 1, threads, 0, arguments);
}

// ---- states in host memory

constexpr int64_t slab_elements = 1 << 24; // 200 MB of float32 states
constexpr int slabs = 3;

bool is_on_host(const AdamWTensor &t) { return t.first.is_cpu() || (t.master.defined() && t.master.is_cpu()); }

// A stretch of a tensor whose states pass through a slab together with others.
struct Part {
    const AdamWTensor *tensor;
    int64_t begin, count;
};

// Parts of one kind, at most slab_elements together.
struct Load {
    Kind kind;
    std::vector<Part> parts;
    int64_t elements = 0;
};

std::vector<Load> plan(const std::vector<const AdamWTensor *> &tensors, bool is_stochastic) {
    std::vector<Load> loads;
    for (const auto *t : tensors) {
        const auto k = kind(*t, is_stochastic);
        for (int64_t begin = 0; begin < t->weight.numel();) {
            if (loads.empty() || loads.back().kind != k || loads.back().elements == slab_elements) loads.push_back({k, {}, 0});
            auto &load = loads.back();
            // Whole blocks, but for a tensor's end, which rounds up.
            const int64_t room = slab_elements - load.elements, count = std::min(room, t->weight.numel() - begin);
            load.parts.push_back({t, begin, count});
            load.elements += (count + moment_block - 1) / moment_block * moment_block;
            begin += count;
        }
    }
    return loads;
}

class Events {
    c10::impl::VirtualGuardImpl guard{c10::kCUDA};
    c10::DeviceIndex device;
    std::vector<void *> events;

  public:
    Events(c10::DeviceIndex device, int count) : device(device), events(count, nullptr) {}
    Events(const Events &) = delete;
    ~Events() {
        for (void *event : events)
            if (event) guard.destroyEvent(event, device);
    }
    void record(int index, const c10::Stream &stream) {
        guard.record(&events[index], stream, device, c10::EventFlag::PYTORCH_DEFAULT);
    }
    void block(int index, const c10::Stream &stream) {
        if (events[index]) guard.block(events[index], stream);
    }
};

// Launches and copies go to `stream` while one lives.
class OnStream {
    c10::impl::VirtualGuardImpl guard{c10::kCUDA};
    c10::Stream before;

  public:
    explicit OnStream(const c10::Stream &stream) : before(guard.exchangeStream(stream)) {}
    OnStream(const OnStream &) = delete;
    ~OnStream() { guard.exchangeStream(before); }
};

// One state of a part on its way: where it stays, and its copy in the slab; the same where it is on the device.
struct Passage {
    at::Tensor home, slab;
    at::Tensor use() const { return slab.defined() ? slab : home; }
};

struct Arrival {
    std::vector<Passage> passages;
    std::vector<Entry> entries;
    int64_t chunk_count = 0;
};

Passage passage(const at::Tensor &whole, int64_t begin, int64_t count, const at::Tensor &slab, int64_t &offset) {
    if (!whole.defined()) return {};
    const auto home = whole.narrow(0, begin, count);
    if (!home.is_cpu()) return {home, {}};
    const int64_t bytes = count * home.element_size();
    auto there = slab.narrow(0, offset, bytes).view(home.scalar_type());
    offset += (bytes + 255) / 256 * 256;
    return {home, there};
}

Arrival arrive(const Load &load, const at::Tensor &slab) {
    Arrival result;
    int64_t offset = 0;
    for (const auto &[tensor, begin, count] : load.parts) {
        const auto &t = *tensor;
        const int64_t first_block = begin / moment_block, blocks = (count + moment_block - 1) / moment_block;
        const Passage master = passage(t.master, begin, count, slab, offset), first = passage(t.first, begin, count, slab, offset),
                      second = passage(t.second, begin, count, slab, offset),
                      first_scale = passage(t.first_scale, first_block, blocks, slab, offset),
                      second_scale = passage(t.second_scale, first_block, blocks, slab, offset);
        AdamWTensor part{t.weight.narrow(0, begin, count), master.use(), t.grad.narrow(0, begin, count), first.use(), second.use(),
                         first_scale.use(), second_scale.use(), t.weight_decay, t.slot};
        auto e = entry(part, result.chunk_count);
        e.offset = begin;
        result.entries.push_back(e);
        for (const auto &p : {master, first, second, first_scale, second_scale})
            if (p.slab.defined()) result.passages.push_back(p);
    }
    return result;
}

int64_t slab_bytes(const std::vector<Load> &loads) {
    int64_t most = 0;
    for (const auto &load : loads) {
        int64_t bytes = 0;
        for (const auto &part : load.parts) {
            auto add = [&](const at::Tensor &x, int64_t count) {
                if (x.defined() && x.is_cpu()) bytes += (count * x.element_size() + 255) / 256 * 256;
            };
            const int64_t blocks = (part.count + moment_block - 1) / moment_block;
            add(part.tensor->master, part.count);
            add(part.tensor->first, part.count);
            add(part.tensor->second, part.count);
            add(part.tensor->first_scale, blocks);
            add(part.tensor->second_scale, blocks);
        }
        most = std::max(most, bytes);
    }
    return most;
}

void apply_streamed(const std::vector<const AdamWTensor *> &tensors, const AdamWState &state, const ct_adamw_step &o) {
    const auto device = state.control.device();
    const auto loads = plan(tensors, o.is_stochastic);
    const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
    const auto main = guard.getStream(device), in = guard.getStreamFromGlobalPool(device), out = guard.getStreamFromGlobalPool(device);
    Events loaded(device.index(), slabs), computed(device.index(), slabs), stored(device.index(), slabs), started(device.index(), 1);
    std::vector<at::Tensor> memory;
    for (int i = 0; i < slabs && i < static_cast<int>(loads.size()); ++i)
        memory.push_back(at::empty({slab_bytes(loads)}, at::TensorOptions().dtype(at::kByte).device(device)));
    // The slabs' memory may still be in use by what was launched before.
    started.record(0, main);
    started.block(0, in);
    for (size_t k = 0; k < loads.size(); ++k) {
        const int slab = static_cast<int>(k % slabs);
        const auto arrival = arrive(loads[k], memory[slab]);
        {
            const OnStream there(in);
            stored.block(slab, in);
            for (const auto &p : arrival.passages) p.slab.copy_(p.home, /*non_blocking=*/true);
            loaded.record(slab, in);
        }
        const auto table = upload(arrival.entries, device);
        loaded.block(slab, main);
        launch_apply(device, loads[k].kind, table.mutable_data_ptr(), static_cast<int>(arrival.entries.size()), arrival.chunk_count, state, o);
        computed.record(slab, main);
        const OnStream there(out);
        computed.block(slab, out);
        for (const auto &p : arrival.passages) p.home.copy_(p.slab, /*non_blocking=*/true);
        stored.record(slab, out);
    }
    // Whoever comes next on this stream finds all of it done, the slabs' memory free.
    for (int i = 0; i < slabs; ++i) stored.block(i, main);
}

} // namespace

namespace cuda {

void adamw_squares(const std::vector<AdamWTensor> &tensors, const at::Tensor &control) {
    const auto device = control.device();
    std::map<bool, std::pair<std::vector<Entry>, int64_t>> groups;
    for (const auto &t : tensors) {
        auto &[entries, chunk_count] = groups[t.grad.scalar_type() == at::kBFloat16];
        entries.push_back(entry(t, chunk_count));
    }
    bool is_first = true;
    for (auto &[is_half, group] : groups) {
        auto &[entries, chunk_count] = group;
        const Kind k{is_half, false, is_half, Moments::float32, false};
        long long all = chunk_count;
        // As many as a device runs at once, the same on every one: the sum's order depends on it.
        const auto blocks = static_cast<unsigned>(std::min<int64_t>(std::max<int64_t>(all, 1), 2048));
        const auto partials = at::empty({static_cast<int64_t>(blocks)}, control.options()), table = upload(entries, device);
        void *table_at = table.mutable_data_ptr(), *partials_at = partials.mutable_data_ptr(), *control_at = control.mutable_data_ptr();
        int count = static_cast<int>(entries.size()), parts = static_cast<int>(blocks), first = is_first;
        void *arguments[] = {&table_at, &count, &all, &partials_at};
        kernel(device, k, "squares").launch(device, blocks, 1, 1, threads, 0, arguments);
        void *adding[] = {&partials_at, &parts, &first, &control_at};
        kernel(device, k, "add_squares").launch(device, 1, 1, 1, threads, 0, adding);
        is_first = false;
    }
    if (is_first) control.zero_();
}

void adamw_prepare(const std::vector<AdamWTensor> &tensors, const AdamWState &state, double max_norm, const ct_adamw_step &o) {
    const auto device = state.control.device();
    std::vector<int> slots;
    for (const auto &t : tensors) slots.push_back(static_cast<int>(t.slot));
    const auto table = upload(slots, device);
    void *slots_at = table.mutable_data_ptr(), *steps = state.steps.mutable_data_ptr(), *corrections = state.corrections.mutable_data_ptr(),
         *control = state.control.mutable_data_ptr();
    int count = static_cast<int>(slots.size());
    double limit = max_norm, beta1 = o.beta1, beta2 = o.beta2;
    void *arguments[] = {&slots_at, &count, &steps, &corrections, &control, &limit, &beta1, &beta2};
    kernel(device, {false, false, false, Moments::float32, false}, "prepare").launch(device, 1, 1, 1, threads, 0, arguments);
}

void adamw_apply(const std::vector<AdamWTensor> &tensors, const AdamWState &state, const ct_adamw_step &o) {
    const auto device = state.control.device();
    std::map<Kind, std::pair<std::vector<Entry>, int64_t>> groups;
    std::vector<const AdamWTensor *> streamed;
    for (const auto &t : tensors) {
        if (is_on_host(t)) {
            streamed.push_back(&t);
            continue;
        }
        auto &[entries, chunk_count] = groups[kind(t, o.is_stochastic)];
        entries.push_back(entry(t, chunk_count));
    }
    for (auto &[k, group] : groups) {
        auto &[entries, chunk_count] = group;
        const auto table = upload(entries, device);
        launch_apply(device, k, table.mutable_data_ptr(), static_cast<int>(entries.size()), chunk_count, state, o);
    }
    if (!streamed.empty()) apply_streamed(streamed, state, o);
}

} // namespace cuda

int compile_optimizer(const std::string &architecture) {
    int count = 0;
    for (const auto stored : {Moments::float32, Moments::bfloat16, Moments::codes})
        // Wholly float32, with masters, and wholly bfloat16.
        for (const auto &k : {Kind{false, false, false, stored, false}, Kind{true, true, false, stored, false},
                              Kind{true, false, true, stored, true}}) {
            compile_cuda("optimizer.cu", text().data(), text().size(), k.options(), architecture);
            ++count;
        }
    return count;
}

} // namespace ct

using namespace ct;

namespace {

// Page-locking by the driver.
struct HostMemory {
    int (*allocate)(void **, size_t, unsigned);
    int (*free)(void *);
    static const HostMemory &get() {
        static const HostMemory found = [] {
            void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
            TORCH_CHECK(library, "cannot open libcuda.so.1: ", dlerror());
            HostMemory memory{reinterpret_cast<decltype(allocate)>(dlsym(library, "cuMemHostAlloc")),
                              reinterpret_cast<decltype(free)>(dlsym(library, "cuMemFreeHost"))};
            TORCH_CHECK(memory.allocate && memory.free, "libcuda.so.1 lacks cuMemHostAlloc or cuMemFreeHost");
            return memory;
        }();
        return found;
    }
};

} // namespace

extern "C" int ct_pinned_zeros(const int64_t *sizes, int ndim, int dtype, CT_RESULT) {
    return guarded(error, [&] {
        const auto type = static_cast<at::ScalarType>(dtype);
        size_t bytes = at::elementSize(type);
        for (int i = 0; i < ndim; ++i) bytes *= static_cast<size_t>(sizes[i]);
        // Makes the device's context this thread's, which the driver allocates for.
        c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(c10::impl::VirtualGuardImpl(at::kCUDA).getDevice().index());
        void *memory = nullptr;
        const int status = HostMemory::get().allocate(&memory, std::max<size_t>(bytes, 1), 1 /* for all contexts */);
        TORCH_CHECK(status == 0 && memory, "the host gave no ", bytes, " bytes of page-locked memory (CUDA error ", status, ")");
        memset(memory, 0, bytes);
        const auto release = [](void *at) {
            // Copies may still be under way.
            const c10::impl::VirtualGuardImpl guard(at::kCUDA);
            guard.synchronizeDevice(guard.getDevice().index());
            HostMemory::get().free(at);
        };
        *out = wrap(at::from_blob(memory, ints(sizes, ndim), release, at::TensorOptions().dtype(type)));
    });
}
