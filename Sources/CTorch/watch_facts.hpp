#pragma once
// What the board and the watch read of processes and clocks, and how they tell of it.
#include "watch.hpp"

#include <cstdarg>
#include <time.h>
#include <unistd.h>

namespace ct {

inline int64_t now_ms() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<int64_t>(time.tv_sec) * 1000 + time.tv_nsec / 1'000'000;
}

__attribute__((format(printf, 1, 2))) inline std::string format(const char *pattern, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, pattern);
    vsnprintf(text, sizeof text, pattern, arguments);
    va_end(arguments);
    return text;
}

inline std::string seconds(int64_t ms) { return format(ms < 10'000 ? "%.2f s" : "%.0f s", static_cast<double>(ms) / 1000); }

template <size_t count> void set(char (&field)[count], const std::string &text) {
    // Not in the middle of a UTF-8 character.
    size_t length = std::min(text.size(), count - 1);
    while (length < text.size() && length > 0 && (text[length] & 0xC0) == 0x80) --length;
    memcpy(field, text.data(), length);
    field[length] = 0;
}

// What the kernel says of a process: its state's letter (0: there is none) and when it started.
struct ProcessFacts {
    char state = 0;
    uint64_t start = 0;

    static ProcessFacts of(int pid) {
        ProcessFacts facts;
        FILE *file = fopen(format("/proc/%d/stat", pid).c_str(), "r");
        if (!file) return facts;
        char line[1024] = {0};
        const size_t count = fread(line, 1, sizeof line - 1, file);
        fclose(file);
        line[count] = 0;
        // The name, in brackets, may hold anything.
        if (const char *rest = strrchr(line, ')')) {
            unsigned long long start = 0;
            char state = 0;
            if (sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state, &start) == 2) {
                facts.state = state;
                facts.start = start;
            }
        }
        return facts;
    }
    bool is_dead() const { return state == 0 || state == 'Z' || state == 'X'; }
};

// Of a process of another host: what that one told.
inline ProcessFacts facts_of(const RankSlot &slot) {
    if (const int told = slot.told) return {static_cast<char>(told), slot.process_start};
    return slot.pid == getpid() ? ProcessFacts{'R', slot.process_start} : ProcessFacts::of(slot.pid);
}

// As `process 12`, and its host where there are several.
inline std::string process(const RankSlot &slot) {
    return slot.node[0] ? format("process %d on %.63s", slot.pid.load(), slot.node) : format("process %d", slot.pid.load());
}

} // namespace ct

struct ct_board_impl {
    std::shared_ptr<ct::Board> board;
};
struct ct_watch_impl {
    std::shared_ptr<ct::Watch> watch;
};
