// The C interface of stores and groups.
#include "group.hpp"
#include "shim.hpp"

#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

using namespace ct;

struct ct_store_impl {
    c10::intrusive_ptr<c10d::Store> store;
    int port;
};
struct ct_pending_impl {
    PendingPointer pending;
};

namespace ct {
c10::intrusive_ptr<c10d::Store> store_of(ct_store store) { return store->store; }
} // namespace ct

namespace {

// What an operation of a group of one leaves to wait for.
struct Done : Pending {
    void wait() override {}
    bool done() override { return true; }
};

int started(ct_pending *out, ct_message *error, auto &&body) {
    return guarded(error, [&] {
        auto pending = body();
        *out = new ct_pending_impl{pending ? std::move(pending) : std::make_unique<Done>()};
    });
}

Group::Tensors contiguous(const ct_tensor *tensors, int count, const char *operation) {
    auto all = list(tensors, count);
    TORCH_CHECK(!all.empty(), operation, ": no tensors");
    for (const auto &tensor : all)
        TORCH_CHECK(tensor.is_contiguous(), operation, ": a tensor of ", tensor.sizes(), " is not contiguous");
    return all;
}

std::vector<Group::Message> messages(const Group &group, const ct_tensor *tensors, const int32_t *peers, int count) {
    std::vector<Group::Message> all;
    for (int i = 0; i < count; ++i) {
        TORCH_CHECK(T(tensors[i]).is_contiguous(), "exchange: a tensor of ", T(tensors[i]).sizes(), " is not contiguous");
        TORCH_CHECK(peers[i] >= 0 && peers[i] < group.size && peers[i] != group.rank, "exchange: rank ", group.rank, " of ",
                    group.size, " cannot exchange with ", peers[i]);
        all.push_back({T(tensors[i]), peers[i]});
    }
    return all;
}

} // namespace

extern "C" {

int ct_store_local(ct_store *out, ct_message *error) {
    return guarded(error, [&] { *out = new ct_store_impl{c10::make_intrusive<c10d::HashStore>(), 0}; });
}

int ct_store_tcp(const char *host, int port, bool listens, int socket, const char *prefix, int64_t timeout_ms, ct_store *out,
                 ct_message *error) {
    return guarded(error, [&] {
        TORCH_CHECK(port >= 0 && port < 65536 && timeout_ms > 0, "store: port ", port, ", timeout ", timeout_ms, " ms");
        c10d::TCPStoreOptions options;
        options.port = static_cast<uint16_t>(port);
        options.isServer = listens;
        options.waitWorkers = false;
        options.timeout = std::chrono::milliseconds(timeout_ms);
        if (listens && socket >= 0) options.masterListenFd = socket;
        auto store = c10::make_intrusive<c10d::TCPStore>(std::string(host), options);
        const int bound = store->getPort();
        if (!*prefix) *out = new ct_store_impl{store, bound};
        else *out = new ct_store_impl{c10::make_intrusive<c10d::PrefixStore>(prefix, store), bound};
    });
}

int ct_store_port(ct_store store) { return store->port; }

int ct_store_set(ct_store store, const char *key, const void *bytes, size_t count, ct_message *error) {
    return guarded(error, [&] {
        const auto *start = static_cast<const uint8_t *>(bytes);
        store->store->set(key, std::vector<uint8_t>(start, start + count));
    });
}

int ct_store_get(ct_store store, const char *key, char **out, size_t *count, ct_message *error) {
    return guarded(error, [&] {
        const auto value = store->store->get(key);
        *count = value.size();
        *out = copy(std::string(value.begin(), value.end()));
    });
}

int ct_store_has(ct_store store, const char *key, bool *out, ct_message *error) {
    return guarded(error, [&] { *out = store->store->check({key}); });
}

int ct_store_add(ct_store store, const char *key, int64_t amount, int64_t *out, ct_message *error) {
    return guarded(error, [&] { *out = store->store->add(key, amount); });
}

void ct_store_free(ct_store store) { delete store; }

int ct_group_rank(ct_group group) { return group->group->rank; }
int ct_group_size(ct_group group) { return group->group->size; }
void ct_group_free(ct_group group) { delete group; }

int ct_group_all_reduce(ct_group group, const ct_tensor *tensors, int count, ct_merge reduction, ct_pending *out,
                        ct_message *error) {
    return started(out, error, [&] {
        auto all = contiguous(tensors, count, "all-reduce");
        return group->group->size == 1 ? nullptr : group->group->all_reduce(std::move(all), reduction);
    });
}

int ct_group_all_gather(ct_group group, const ct_tensor *inputs, const ct_tensor *outputs, int count, ct_pending *out,
                        ct_message *error) {
    return started(out, error, [&]() -> PendingPointer {
        auto from = contiguous(inputs, count, "all-gather"), to = contiguous(outputs, count, "all-gather");
        for (int i = 0; i < count; ++i)
            TORCH_CHECK(to[i].numel() == from[i].numel() * group->group->size && to[i].scalar_type() == from[i].scalar_type(),
                        "all-gather: ", from[i].sizes(), " of ", group->group->size, " ranks do not fill ", to[i].sizes());
        if (group->group->size > 1) return group->group->all_gather(std::move(from), std::move(to));
        for (int i = 0; i < count; ++i) to[i].view(-1).copy_(from[i].view(-1));
        return nullptr;
    });
}

int ct_group_reduce_scatter(ct_group group, const ct_tensor *inputs, const ct_tensor *outputs, int count, ct_merge reduction,
                            ct_pending *out, ct_message *error) {
    return started(out, error, [&]() -> PendingPointer {
        auto from = contiguous(inputs, count, "reduce-scatter"), to = contiguous(outputs, count, "reduce-scatter");
        for (int i = 0; i < count; ++i)
            TORCH_CHECK(from[i].numel() == to[i].numel() * group->group->size && to[i].scalar_type() == from[i].scalar_type(),
                        "reduce-scatter: ", from[i].sizes(), " of ", group->group->size, " ranks do not fill ", to[i].sizes());
        if (group->group->size > 1) return group->group->reduce_scatter(std::move(from), std::move(to), reduction);
        for (int i = 0; i < count; ++i) to[i].view(-1).copy_(from[i].view(-1));
        return nullptr;
    });
}

int ct_group_broadcast(ct_group group, const ct_tensor *tensors, int count, int root, ct_pending *out, ct_message *error) {
    return started(out, error, [&] {
        auto all = contiguous(tensors, count, "broadcast");
        TORCH_CHECK(root >= 0 && root < group->group->size, "broadcast: root ", root, " of ", group->group->size, " ranks");
        return group->group->size == 1 ? nullptr : group->group->broadcast(std::move(all), root);
    });
}

int ct_group_all_to_all(ct_group group, ct_tensor input, ct_tensor output, const int64_t *input_rows, const int64_t *output_rows,
                        ct_pending *out, ct_message *error) {
    return started(out, error, [&]() -> PendingPointer {
        const int size = group->group->size;
        std::vector<int64_t> from(input_rows, input_rows + size), to(output_rows, output_rows + size);
        const auto &x = T(input), &y = T(output);
        TORCH_CHECK(x.is_contiguous() && y.is_contiguous() && x.dim() > 0 && y.dim() == x.dim() &&
                        std::accumulate(from.begin(), from.end(), int64_t(0)) == x.size(0) &&
                        std::accumulate(to.begin(), to.end(), int64_t(0)) == y.size(0) &&
                        x.scalar_type() == y.scalar_type() && x.sizes().slice(1) == y.sizes().slice(1),
                    "all-to-all: ", x.sizes(), " by rows ", from, " and ", y.sizes(), " by rows ", to, " do not fit");
        if (size > 1) return group->group->all_to_all(x, y, std::move(from), std::move(to));
        at::Tensor(y).copy_(x);
        return nullptr;
    });
}

int ct_group_exchange(ct_group group, const ct_tensor *sends, const int32_t *send_peers, int send_count, const ct_tensor *receives,
                      const int32_t *receive_peers, int receive_count, ct_pending *out, ct_message *error) {
    return started(out, error, [&]() -> PendingPointer {
        auto from = messages(*group->group, sends, send_peers, send_count);
        auto to = messages(*group->group, receives, receive_peers, receive_count);
        if (from.empty() && to.empty()) return nullptr;
        return group->group->exchange(std::move(from), std::move(to));
    });
}

int ct_group_barrier(ct_group group, ct_message *error) {
    return guarded(error, [&] {
        if (group->group->size > 1) group->group->start_barrier()->wait();
    });
}

int ct_group_abort(ct_group group, ct_message *error) {
    return guarded(error, [&] { group->group->abort(); });
}

int ct_pending_wait(ct_pending pending, ct_message *error) {
    return guarded(error, [&] { pending->pending->wait(); });
}
int ct_pending_done(ct_pending pending, bool *out, ct_message *error) {
    return guarded(error, [&] { *out = pending->pending->done(); });
}
void ct_pending_free(ct_pending pending) { delete pending; }

} // extern "C"
