// The names that libtorch's ProcessGroupGloo.hpp speaks of. Gloo itself is inside libtorch_cpu, whose wheel leaves its headers out;
// nothing here is called or laid out by us, except through pointers.
#pragma once
#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace gloo {
// Seen behind pointers only; an inline function that we do not call names this one.
class Context {
public:
    void setTimeout(std::chrono::milliseconds timeout);
};
namespace transport {
class Device;
class UnboundBuffer;
} // namespace transport
namespace rendezvous {
class Store {
public:
    virtual ~Store() = default;
    virtual void set(const std::string &key, const std::vector<char> &data) = 0;
    virtual std::vector<char> get(const std::string &key) = 0;
    virtual void wait(const std::vector<std::string> &keys) = 0;
    virtual void wait(const std::vector<std::string> &keys, const std::chrono::milliseconds &timeout) = 0;
};
} // namespace rendezvous
} // namespace gloo
