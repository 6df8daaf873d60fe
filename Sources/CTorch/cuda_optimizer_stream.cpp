// AdamW's states that stay in pinned host memory, on their way through the device.
#include "cuda_optimizer.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <map>
#include <utility>

namespace ct {
namespace {

using namespace cuda;

constexpr int64_t slab_elements = 1 << 24; // 200 MB of float32 states
constexpr size_t fewest_slabs = 3;

// A stretch of a tensor whose states pass through a slab together with others.
struct Part {
    AdamWTensor tensor;
    int64_t begin, count;
};

// Parts of one kind, at most slab_elements together.
struct Load {
    Kind kind; // but for the gradients
    std::vector<Part> parts;
    int64_t elements = 0;
};

std::vector<Load> plan(const std::vector<AdamWTensor> &tensors) {
    std::vector<Load> loads;
    for (const auto &t : tensors) {
        const Kind k{t.weight.scalar_type() == at::kBFloat16, t.master.defined(), false, moments(t), false};
        for (int64_t begin = 0; begin < t.weight.numel();) {
            if (loads.empty() || loads.back().kind != k || loads.back().elements == slab_elements) loads.push_back({k, {}, 0});
            auto &load = loads.back();
            // Whole blocks, but for a tensor's end, which rounds up.
            const int64_t room = slab_elements - load.elements, count = std::min(room, t.weight.numel() - begin);
            load.parts.push_back({t, begin, count});
            load.elements += (count + moment_block - 1) / moment_block * moment_block;
            begin += count;
        }
    }
    return loads;
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
            add(part.tensor.master, part.count);
            add(part.tensor.first, part.count);
            add(part.tensor.second, part.count);
            add(part.tensor.first_scale, blocks);
            add(part.tensor.second_scale, blocks);
        }
        most = std::max(most, bytes);
    }
    return most;
}

// One state of a part: where it stays, and its copy in the slab; the same where it is on the device.
struct Passage {
    at::Tensor home, slab;
    at::Tensor use() const { return slab.defined() ? slab : home; }
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

// A part with its states in a slab.
struct Arrived {
    Part part;
    Passage master, first, second, first_scale, second_scale;

    template <class Body> void each(Body body) const {
        for (const auto *p : {&master, &first, &second, &first_scale, &second_scale})
            if (p->slab.defined()) body(*p);
    }
};

std::vector<Arrived> arrive(const Load &load, const at::Tensor &slab) {
    std::vector<Arrived> all;
    int64_t offset = 0;
    for (const auto &part : load.parts) {
        const auto &t = part.tensor;
        const int64_t first_block = part.begin / moment_block, blocks = (part.count + moment_block - 1) / moment_block;
        Arrived a{part, passage(t.master, part.begin, part.count, slab, offset), passage(t.first, part.begin, part.count, slab, offset),
                  passage(t.second, part.begin, part.count, slab, offset), passage(t.first_scale, first_block, blocks, slab, offset),
                  passage(t.second_scale, first_block, blocks, slab, offset)};
        all.push_back(std::move(a));
    }
    return all;
}

class Event {
    c10::impl::VirtualGuardImpl guard{c10::kCUDA};
    c10::DeviceIndex device;
    void *event = nullptr;

  public:
    explicit Event(c10::DeviceIndex device) : device(device) {}
    Event(Event &&other) noexcept : device(other.device), event(std::exchange(other.event, nullptr)) {}
    Event(const Event &) = delete;
    ~Event() {
        if (event) guard.destroyEvent(event, device);
    }
    void record(const c10::Stream &stream) { guard.record(&event, stream, device, c10::EventFlag::PYTORCH_DEFAULT); }
    void block(const c10::Stream &stream) {
        if (event) guard.block(event, stream);
    }
    void synchronize() {
        if (event) guard.synchronizeEvent(event);
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

struct Slab {
    at::Tensor memory;
    Event loaded, computed, stored;
    std::vector<Arrived> content;
};

class CudaStateStream final : public StateStream {
    c10::Device device;
    c10::impl::VirtualGuardImpl guard{c10::kCUDA};
    c10::Stream in, out;
    std::vector<Load> loads;
    std::vector<Slab> slabs;
    // Loads that have been sent for, the first ones, each to the slab of its number.
    size_t sent = 0;
    int64_t bytes = 0;

    void add_slab() {
        slabs.push_back({at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(device)), Event(device.index()), Event(device.index()),
                         Event(device.index()), {}});
        // The memory may still be in use by what was launched before.
        Event free(device.index());
        free.record(guard.getStream(device));
        free.block(in);
    }

    // Before slabs go: their memory goes back to a stream that knows nothing of the copies.
    void wait() {
        for (auto &slab : slabs) {
            slab.loaded.synchronize();
            slab.stored.synchronize();
        }
    }

    void send() {
        auto &slab = slabs[sent % slabs.size()];
        slab.content = arrive(loads[sent++], slab.memory);
        const OnStream there(in);
        slab.stored.block(in);
        for (const auto &a : slab.content) a.each([](const Passage &p) { p.slab.copy_(p.home, /*non_blocking=*/true); });
        slab.loaded.record(in);
    }

  public:
    explicit CudaStateStream(c10::Device device)
        : device(device), in(guard.getStreamFromGlobalPool(device)), out(guard.getStreamFromGlobalPool(device)) {}
    ~CudaStateStream() override { wait(); }

    void prefetch(const std::vector<AdamWTensor> &tensors, int64_t room) override {
        if (sent == 0) {
            settle();
            std::vector<AdamWTensor> hosted;
            for (const auto &t : tensors)
                if (is_on_host(t)) hosted.push_back(t);
            loads = plan(hosted);
            bytes = slab_bytes(loads);
        }
        for (; sent < loads.size() && room >= bytes; room -= bytes) {
            add_slab();
            send();
        }
    }

    void apply(const std::vector<AdamWTensor> &tensors, const AdamWState &state, const ct_adamw_step &o) override {
        if (sent == 0) {
            settle();
            loads = plan(tensors);
            bytes = slab_bytes(loads);
        }
        const auto main = guard.getStream(device);
        while (slabs.size() < std::min(fewest_slabs, loads.size())) add_slab();
        std::map<int64_t, const AdamWTensor *> by_slot;
        for (const auto &t : tensors) by_slot[t.slot] = &t;
        for (size_t k = 0; k < loads.size(); ++k) {
            // As far ahead as there are slabs.
            while (sent < loads.size() && sent < k + slabs.size()) send();
            auto &slab = slabs[k % slabs.size()];
            std::vector<Entry> entries;
            int64_t chunk_count = 0;
            Kind used = loads[k].kind;
            for (const auto &a : slab.content) {
                const auto found = by_slot.find(a.part.tensor.slot);
                if (found == by_slot.end()) continue; // no gradient
                const auto &t = *found->second;
                AdamWTensor part{t.weight.narrow(0, a.part.begin, a.part.count), a.master.use(), t.grad.narrow(0, a.part.begin, a.part.count),
                                 a.first.use(), a.second.use(), a.first_scale.use(), a.second_scale.use(), t.weight_decay, t.slot};
                const Kind own = kind(part, o.is_stochastic);
                TORCH_CHECK(entries.empty() || own == used, "AdamW: gradients of two types for weights of one");
                used = own;
                auto e = entry(part, chunk_count);
                e.offset = a.part.begin;
                entries.push_back(e);
            }
            slab.loaded.block(main);
            if (!entries.empty()) {
                const auto table = upload(entries, device);
                launch_apply(device, used, table.mutable_data_ptr(), static_cast<int>(entries.size()), chunk_count, state, o);
            }
            slab.computed.record(main);
            const OnStream there(out);
            slab.computed.block(out);
            for (const auto &a : slab.content)
                if (by_slot.contains(a.part.tensor.slot)) a.each([](const Passage &p) { p.home.copy_(p.slab, /*non_blocking=*/true); });
            slab.stored.record(out);
        }
        loads.clear();
        sent = 0;
    }

    void settle() override {
        if (sent == 0) drop();
    }

    void drop() override {
        wait();
        slabs.clear();
        loads.clear();
        sent = 0;
    }
};

} // namespace

namespace cuda {

bool is_on_host(const AdamWTensor &t) { return t.first.is_cpu() || (t.master.defined() && t.master.is_cpu()); }

std::unique_ptr<StateStream> state_stream(c10::Device device) { return std::make_unique<CudaStateStream>(device); }

} // namespace cuda
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
