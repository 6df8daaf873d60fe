/// The part of the sandbox's program that gives up rights: Linux's Landlock for files, seccomp for system calls, and
/// capabilities. All of it works without root; on another system the functions raise.
enum SandboxFilter {
    static let source = #"""
        import ctypes, platform

        def check(result, what):
            if result < 0:
                number = ctypes.get_errno()
                raise OSError(number, what + ": " + os.strerror(number))
            return result

        def system_call(number, *arguments):
            return libc.syscall(ctypes.c_long(number), *arguments)

        def no_new_privileges():
            check(libc.prctl(38, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")

        def drop_capabilities():
            for capability in range(64):
                if libc.prctl(24, capability, 0, 0, 0) < 0:
                    break
            head = struct.pack("Ii", 0x20080522, 0)
            libc.capset(head, bytes(24))

        # Landlock (linux/landlock.h): files may be read below the given paths, and nothing else.
        READ_FILE, READ_DIR = 1 << 2, 1 << 3

        def landlock_ruleset(paths):
            if libc is None or sys.platform != "linux":
                raise OSError("Landlock is Linux's")
            version = check(system_call(444, None, ctypes.c_size_t(0), ctypes.c_uint(1)), "Landlock")
            handled = (1 << 13) - 1
            if version >= 2:
                handled |= 1 << 13
            if version >= 3:
                handled |= 1 << 14
            if version >= 5:
                handled |= 1 << 15
            attributes = struct.pack("QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
            size = 24 if version >= 6 else 16 if version >= 4 else 8
            ruleset = check(
                system_call(444, attributes[:size], ctypes.c_size_t(size), ctypes.c_uint(0)), "landlock_create_ruleset")
            for path in paths:
                try:
                    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except OSError:
                    continue
                allowed = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
                rule = struct.pack("=Qi", allowed, opened)
                result = system_call(445, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
                os.close(opened)
                check(result, "landlock_add_rule " + path)
            return ruleset

        def landlock_restrict(ruleset):
            check(system_call(446, ctypes.c_int(ruleset), ctypes.c_uint(0)), "landlock_restrict_self")

        # seccomp (linux/seccomp.h, linux/filter.h). Numbers below 424 differ between architectures; those from there on do not.
        # Refused are: sockets but for pairs, new processes and programs, signals to others, changes of files, limits,
        # priorities, identities, namespaces, mounts, clocks and modules, and what looks into other processes or the kernel.
        REFUSED = {
            "x86_64": [
                41, 42, 43, 49, 50, 288, 57, 58, 59, 322, 129, 200, 297, 101, 310, 311, 312, 82, 83, 84, 85, 86, 87, 88, 90,
                91, 92, 93, 94, 76, 133, 258, 259, 260, 263, 264, 265, 266, 268, 316, 132, 235, 280, 261, 188, 189, 190, 197,
                198, 199, 285, 303, 304, 319, 165, 166, 155, 161, 272, 308, 167, 168, 169, 170, 171, 175, 176, 313, 246, 320,
                163, 164, 227, 305, 159, 179, 172, 173, 321, 298, 250, 248, 249, 323, 212, 103, 135, 153, 180, 105, 106, 113,
                114, 116, 117, 119, 122, 123, 126, 160, 141, 144, 142, 203, 314, 251, 109, 112, 29, 30, 31, 64, 65, 66, 220,
                68, 69, 70, 71, 240, 241, 242, 300, 253, 294, 206, 207, 208, 209, 210, 134, 139, 156],
            "aarch64": [
                198, 200, 201, 202, 203, 242, 221, 281, 138, 130, 240, 117, 270, 271, 272, 33, 34, 35, 36, 37, 38, 276, 45, 47,
                52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16, 264, 265, 279, 39, 40, 41, 51, 97, 268, 224, 225, 142, 161, 162, 105,
                106, 273, 104, 294, 89, 170, 112, 266, 171, 60, 280, 241, 219, 217, 218, 282, 18, 116, 92, 58, 42, 143, 144,
                145, 146, 147, 149, 151, 152, 159, 91, 164, 140, 119, 118, 122, 274, 30, 154, 157, 194, 195, 196, 190, 191,
                192, 193, 186, 187, 188, 189, 180, 181, 182, 262, 26, 0, 1, 2, 3, 4],
        }
        # Of the newer calls only close_range, faccessat2, epoll_pwait2 and futex_waitv are known to be harmless.
        NEWER, HARMLESS = 424, [436, 439, 441, 449]
        NAMED = {
            "x86_64": {"arch": 0xC000003E, "clone": 56, "kill": 62, "tgkill": 234, "open": 2, "openat": 257, "prlimit64": 302,
                       "prctl": 157},
            "aarch64": {"arch": 0xC00000B7, "clone": 220, "kill": 129, "tgkill": 131, "openat": 56, "prlimit64": 261,
                        "prctl": 167},
        }
        ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
        # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE; CLONE_THREAD.
        WRITING, THREAD = 0x1 | 0x2 | 0x40 | 0x200 | 0x400 | 0x400000, 0x10000
        OWN_PROCESS = object()

        def call_filter():
            machine = platform.machine()
            if libc is None or sys.platform != "linux" or machine not in NAMED or sys.byteorder != "little":
                raise OSError("no filter of system calls is written for " + sys.platform + " on " + machine)
            named = NAMED[machine]
            load = lambda offset: (0x20, 0, 0, offset)
            answer = lambda what: (0x06, 0, 0, what)
            equal = lambda what, then, otherwise: (0x15, then, otherwise, what)
            argument = lambda index: 16 + 8 * index
            program = [load(4), equal(named["arch"], 1, 0), answer(KILL), load(0)]
            if machine == "x86_64":
                # The 32-bit numbers of x32.
                program += [(0x35, 0, 1, 0x40000000), answer(KILL)]

            def rule(name, *steps):
                if name in named:
                    program.extend([equal(named[name], 0, len(steps)), *steps])

            rule("clone", load(argument(0)), (0x45, 0, 1, THREAD), answer(ALLOW), answer(EPERM))
            rule("open", load(argument(1)), (0x45, 0, 1, WRITING), answer(EPERM), answer(ALLOW))
            rule("openat", load(argument(2)), (0x45, 0, 1, WRITING), answer(EPERM), answer(ALLOW))
            for name in ("kill", "tgkill"):
                rule(name, load(argument(0)), equal(OWN_PROCESS, 0, 1), answer(ALLOW), answer(EPERM))
            rule("prlimit64", load(argument(2)), equal(0, 0, 3), load(argument(2) + 4), equal(0, 0, 1), answer(ALLOW),
                 answer(EPERM))
            # PR_SET_NAME.
            rule("prctl", load(argument(0)), equal(15, 0, 1), answer(ALLOW), answer(EPERM))
            for number in sorted(REFUSED[machine]):
                program += [equal(number, 0, 1), answer(EPERM)]
            for number in HARMLESS:
                program += [equal(number, 0, 1), answer(ALLOW)]
            program += [(0x35, 0, 1, NEWER), answer(ENOSYS), answer(ALLOW)]
            return program

        def install_filter(program):
            process = os.getpid()
            data = b"".join(
                struct.pack("HBBI", code, then, otherwise, process if what is OWN_PROCESS else what)
                for code, then, otherwise, what in program)
            held = ctypes.create_string_buffer(data, len(data))
            head = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(held))
            check(libc.prctl(22, 2, head, 0, 0), "PR_SET_SECCOMP")

        """#
}
