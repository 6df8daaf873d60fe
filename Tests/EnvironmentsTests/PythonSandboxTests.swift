import ChatTemplates
import Conversations
import Environments
import Foundation
import Testing

/// Strangers' code, on hosts that can keep it in; elsewhere the suite says so and is skipped.
@Suite struct PythonSandboxTests {
    static func sandbox(
        _ configure: (inout SandboxConfiguration) -> Void = { _ in }, _ body: (PythonSandbox) async throws -> Void
    ) async throws {
        var configuration = SandboxConfiguration()
        configuration.time = .seconds(600)
        configure(&configuration)
        let sandbox: PythonSandbox
        do { sandbox = try await PythonSandbox(configuration) } catch let error as EnvironmentError
            where error.code == .sandbox
        {
            FileHandle.standardError.write(Data("SKIPPED sandbox suite: \(error)\n".utf8))
            return
        }
        do { try await body(sandbox) } catch {
            await sandbox.shutdown()
            throw error
        }
        await sandbox.shutdown()
    }

    @Test func runsCode() async throws {
        try await Self.sandbox { sandbox in
            #expect(sandbox.notEnforced == [])
            for (code, output) in [
                ("1 + 1", "2\n"), ("print('é😀')", "é😀\n"), ("x = 5", ""), ("import math\nmath.sqrt(16)", "4.0\n"),
                ("None", ""),
                ("import threading\nt = threading.Thread(target=print, args=('t',))\nt.start()\nt.join()", "t\n"),
                ("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 3\nasyncio.run(f())", "3\n"),
                ("import sys\nsys.exit(0)", ""),
                ("import json, re, itertools, decimal, fractions, statistics, datetime\n7", "7\n"),
                ("def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nf(20)", "2432902008176640000\n"),
            ] {
                let outcome = await sandbox.run(code)
                #expect(outcome.ending == .finished && outcome.output == output, "\(code): \(outcome)")
            }
            // Nothing is kept between calls, and draws are the same each time.
            _ = await sandbox.run("import builtins; builtins.left = 5")
            #expect(await sandbox.run("left").ending == .raised)
            let draw = "import random; random.random()"
            #expect(await sandbox.run(draw).output == sandbox.run(draw).output)
        }
    }

    @Test func errorsAreShown() async throws {
        try await Self.sandbox { sandbox in
            let outcome = await sandbox.run("def f():\n    return 1 / 0\nprint('before')\nf()")
            #expect(outcome.ending == .raised)
            #expect(
                outcome.output.hasPrefix("before\nTraceback")
                    && outcome.output.hasSuffix("ZeroDivisionError: division by zero\n"))
            #expect(outcome.output.contains("line 2, in f\n    return 1 / 0"))
            #expect(await sandbox.run("def f(:").output.contains("SyntaxError"))
            #expect(await sandbox.run("import sys; sys.exit(3)").ending == .raised)
            #expect(await sandbox.run(String(repeating: "#", count: 70_000)).ending == .refused)
            #expect(await sandbox.run("import os; os.abort()").ending == .killed)
            #expect(await sandbox.run("import os; os.kill(os.getpid(), 9)").ending == .killed)
        }
    }

    /// Each is refused by the system with an error that the code sees.
    @Test(arguments: [
        "import socket; socket.socket()", "import socket; socket.socket(socket.AF_UNIX)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9', timeout=2)", "import os; os.fork()",
        "import subprocess; subprocess.run(['/bin/true'])", "import os; os.execv('/bin/true', ['true'])",
        "import os; os.system('true') and 1/0",
        "import multiprocessing; multiprocessing.Process(target=print).start()", "open('/etc/passwd').read()",
        "open('/proc/self/environ').read()", "open('/proc/1/cmdline').read()", "import os; os.listdir('/')",
        "import os; os.listdir('/tmp')",
        "open('/tmp/fledge-sandbox-test', 'w')", "import os; os.mkdir('/tmp/fledge-sandbox-test')",
        "import os; os.unlink('/tmp')",
        "import os; os.rename('/tmp', '/tmq')", "import os; os.symlink('/tmp', '/tmp/fledge-sandbox-link')",
        "import os; os.chmod('/tmp', 0)",
        "import os; os.truncate('/etc/hostname', 0)", "import tempfile; tempfile.TemporaryFile()",
        "import os; os.memfd_create('x')",
        "import os; os.kill(os.getppid(), 9)", "import os; os.kill(-1, 0)", "import os; os.killpg(os.getppid(), 9)",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))", "import os; os.setuid(1000)",
        "import os; os.nice(-5)",
        "import os; os.setsid()", "import os; os.chroot('/')", "import mmap; mmap.mmap(-1, 4 << 30)",
        "bytearray(4 << 30)",
        "import ctypes; import os; r = ctypes.CDLL(None, use_errno=True).syscall(425, 8, 0)\nif r < 0: raise OSError(ctypes.get_errno(), 'io_uring')",
        "import ctypes; r = ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0)\nif r < 0: raise OSError(ctypes.get_errno(), 'ptrace')",
        "import ctypes; r = ctypes.CDLL(None, use_errno=True).unshare(0x10000000)\nif r < 0: raise OSError(ctypes.get_errno(), 'unshare')",
        "import ctypes; r = ctypes.CDLL(None, use_errno=True).mount(0, b'/', 0, 0x1000, 0)\nif r < 0: raise OSError(ctypes.get_errno(), 'mount')",
    ]) func refusesAttempts(_ code: String) async throws {
        try await Self.sandbox { sandbox in
            let outcome = await sandbox.run(code)
            #expect(outcome.ending == .raised, "\(code): \(outcome)")
            let last = outcome.output.split(separator: "\n").last ?? ""
            #expect(
                [
                    "PermissionError", "OSError", "MemoryError", "URLError", "FileNotFoundError", "ZeroDivisionError",
                    "ValueError", "BlockingIOError",
                ]
                .contains { last.contains($0) }, "\(code): \(outcome)")
        }
    }

    /// What cannot be refused is ended, and others go on meanwhile.
    @Test func endsWhatGoesOn() async throws {
        try await Self.sandbox({ $0.time = .seconds(8) }) { sandbox in
            async let sleeper = sandbox.run("import time\nprint('zzz')\ntime.sleep(1000)")
            async let stopped = sandbox.run("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
            let ended = await [sleeper, stopped]
            #expect(ended.map(\.ending) == [.timedOut, .timedOut] && ended[0].output == "zzz\n", "\(ended)")
        }
        try await Self.sandbox({
            $0.processorSeconds = 2
            $0.memory = 256 << 20
            $0.outputBytes = 1000
        }) { sandbox in
            async let loop = sandbox.run("print('on')\nwhile True: pass")
            async let caught = sandbox.run(
                "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\nwhile True: pass")
            async let flood = sandbox.run("while True: print('x' * 100)")
            async let errors = sandbox.run("import sys\nwhile True: sys.stderr.write('y' * 100)")
            async let memory = sandbox.run("x = []\nwhile True: x.append(bytearray(1 << 20))")
            async let threads = sandbox.run(
                "import threading, time\nfor i in range(10000): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
            )
            async let stack = sandbox.run("import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()")
            async let fine = sandbox.run("6 * 7")
            #expect(await fine.output == "42\n")
            let ended = await [loop, caught, flood, errors]
            #expect(
                ended.map(\.ending) == [.processorTime, .processorTime, .tooMuchOutput, .tooMuchOutput], "\(ended)")
            #expect(ended[0].output == "on\n")
            #expect(ended[2].output.utf8.count == 1000 && ended[3].output.hasPrefix("yyy"))
            let memoryEnded = await memory
            #expect(memoryEnded.ending == .raised && memoryEnded.output.contains("MemoryError"))
            #expect(memoryEnded.peakBytes < 300 << 20)
            let threadsEnded = await threads
            #expect(
                threadsEnded.ending == .raised && threadsEnded.output.contains("can't start new thread"),
                "\(threadsEnded)")
            #expect([.killed, .raised, .processorTime].contains(await stack.ending))
            #expect(await sandbox.run("1").output == "1\n")
        }
    }

    /// A fork bomb starts nothing at all.
    @Test func forkBombsStartNothing() async throws {
        try await Self.sandbox { sandbox in
            let outcome = await sandbox.run(
                "import os\nn = 0\nfor i in range(1000):\n    try:\n        os.fork()\n        n += 1\n    except OSError:\n        pass\nn"
            )
            #expect(outcome.output == "0\n")
        }
    }

    /// Code gets none of this process's environment, files or memory of earlier code.
    @Test func seesNothingOfOthers() async throws {
        try await Self.sandbox { sandbox in
            #expect(await sandbox.run("import os; dict(os.environ)").output == "{}\n")
            #expect(await sandbox.run("import os; os.getcwd()").output == "'/'\n")
            // Standard input is empty; output and error are the only pipes.
            #expect(await sandbox.run("input()").output.contains("EOFError"))
            let code =
                "import os\nfound = []\nfor i in range(3, 256):\n    try:\n        os.fstat(i)\n        found.append(i)\n    except OSError:\n        pass\nfound"
            #expect(await sandbox.run(code).output == "[]\n")
        }
    }

    @Test func manyRunAtOnce() async throws {
        try await Self.sandbox({ $0.concurrency = 4 }) { sandbox in
            let outputs = await withTaskGroup(of: (Int, String).self) { group in
                for index in 0..<64 { group.addTask { (index, await sandbox.run("\(index) ** 2").output) } }
                return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
            }
            #expect((0..<64).allSatisfy { outputs[$0] == "\($0 * $0)\n" })
        }
    }

    @Test func theToolTellsTheModel() async throws {
        try await Self.sandbox({ $0.time = .seconds(8) }) { sandbox in
            let tool = try PythonTool(sandbox)
            #expect(tool.definition.name == "python")
            #expect(await tool.call(["code": "print(1)\nprint(2)"]) == ToolResult("1\n2"))
            #expect(await tool.call(["code": "x = 1"]) == ToolResult("(no output)"))
            #expect(await tool.call(["code": "1/0"]).failure == "raised")
            let late = await tool.call(["code": "print('a')\nimport time\ntime.sleep(100)"])
            #expect(
                late
                    == ToolResult(
                        "a\nError: the code was stopped: it ran longer than 8.0 seconds.", failure: "timed_out"))
        }
    }

    /// An interpreter on whose host there is no seccomp: the probes find out what that leaves open.
    @Test func refusesHostsThatCannotKeepCodeIn() async throws {
        let file = try EnvironmentFile(
            """
            #!/usr/bin/env python3
            import os, sys
            given = sys.argv[1:]
            place = given.index("-c") + 1
            broken = "def call_filter():\\n    raise OSError('no seccomp here')\\n"
            given[place] = given[place].replace("def call_filter():\\n", broken)
            os.execvp("python3", ["python3"] + given)
            """)
        chmod(file.path, 0o755)
        var configuration = SandboxConfiguration()
        configuration.interpreter = file.path
        do {
            let sandbox = try await PythonSandbox(configuration)
            await sandbox.shutdown()
            Issue.record("a host without seccomp was taken: \(sandbox.enforced)")
        } catch let error as EnvironmentError {
            #expect(error.code == .sandbox)
            for words in ["network", "processes", "no seccomp here", "waive"] {
                #expect(error.message.contains(words), "\(error)")
            }
        }
        configuration.waived = Set(SandboxMeasure.allCases)
        let sandbox = try await PythonSandbox(configuration)
        #expect(sandbox.notEnforced.isSuperset(of: [.network, .processes]) && sandbox.enforced.contains(.memory))
        #expect(await sandbox.run("import socket\nsocket.socket().close()\n'open'").output == "'open'\n")
        await sandbox.shutdown()
    }

    @Test func settingsAreChecked() async throws {
        for change in [
            \SandboxConfiguration.processorSeconds, \.memory, \.outputBytes, \.codeBytes, \.openFiles, \.concurrency,
        ] {
            var configuration = SandboxConfiguration()
            configuration[keyPath: change] = 0
            await #expect(throws: EnvironmentError.self) { try await PythonSandbox(configuration) }
        }
        var configuration = SandboxConfiguration()
        configuration.preloaded = ["no_module_of_this_name"]
        do {
            _ = try await PythonSandbox(configuration)
            Issue.record("a module that is not there was imported")
        } catch {
            #expect("\(error)".contains("no_module_of_this_name"))
        }
        configuration.preloaded = []
        configuration.interpreter = "python-nonexistent"
        await #expect(throws: EnvironmentError.self) { try await PythonSandbox(configuration) }
    }
}
