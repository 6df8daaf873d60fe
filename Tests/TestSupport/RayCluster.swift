import Foundation

/// A real Ray cluster of two nodes on this machine, at 127.0.0.2 and 127.0.0.3. It ends with this process.
public final class RayCluster: Sendable {
    /// As `127.0.0.2:6379`.
    public let address: String
    /// As `http://127.0.0.2:8265`.
    public let dashboard: String
    /// The Python that runs it.
    public let python: String
    private let requests: FileHandle
    private let answers: Answers

    public static let nodes = ["127.0.0.2", "127.0.0.3"]
    /// Names the Python that has Ray; else that of `scripts/setup --ray` is taken.
    public static let variable = "FLEDGE_RAY_PYTHON"

    /// nil, and said so, where there is no Ray.
    public static func installed(for suite: String) -> String? {
        let own = Golden.packageRoot.appending(path: ".deps/ray/bin/python").path
        let path = ProcessInfo.processInfo.environment[variable] ?? own
        if FileManager.default.isExecutableFile(atPath: path) { return path }
        let note = "SKIPPED \(suite): no Python with Ray at \(path); run scripts/setup --ray, or set \(variable)\n"
        FileHandle.standardError.write(Data(note.utf8))
        return nil
    }

    /// Runs a test with this process's one cluster, whole, while no other test uses it; skips it, and says so, where there is no Ray.
    public static func use(for suite: String, _ body: (RayCluster) async throws -> Void) async throws {
        guard let python = installed(for: suite) else { return }
        await turns.take()
        do {
            let cluster = try await turns.cluster(python)
            try await cluster.ask("mend")
            try await body(cluster)
            await turns.give()
        } catch {
            await turns.give()
            throw error
        }
    }

    private static let turns = Turns()

    private actor Turns {
        private var made: Result<RayCluster, any Error>?
        private var isTaken = false
        private var waiting: [CheckedContinuation<Void, Never>] = []

        func take() async {
            if isTaken { await withCheckedContinuation { waiting.append($0) } }
            isTaken = true
        }

        func give() {
            isTaken = false
            if !waiting.isEmpty {
                isTaken = true
                waiting.removeFirst().resume()
            }
        }

        /// Only for whose turn it is.
        func cluster(_ python: String) async throws -> RayCluster {
            if let made { return try made.get() }
            do {
                let cluster = try await RayCluster.offTheTestsThreads { try RayCluster(python: python) }
                made = .success(cluster)
                return cluster
            } catch {
                made = .failure(error)
                throw error
            }
        }
    }

    /// Starts it.
    /// - Throws: what Ray says where it does not start.
    private init(python: String) throws {
        self.python = python
        let process = Process()
        let input = Pipe(), output = Pipe()
        process.executableURL = URL(fileURLWithPath: python)
        process.arguments = ["-u", "-c", Self.program]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        requests = input.fileHandleForWriting
        answers = Answers(output.fileHandleForReading)
        struct Ready: Decodable {
            var address: String?
            var dashboard: String?
            var error: String?
        }
        let ready = try JSONDecoder().decode(Ready.self, from: Data(answers.next().utf8))
        guard let address = ready.address, let dashboard = ready.dashboard else {
            throw Failure(description: "Ray does not start: \(ready.error ?? "")")
        }
        self.address = address
        self.dashboard = dashboard
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    /// Kills all processes of a node, as a machine that loses its power. The next test gets it back.
    public func kill(_ node: String) async throws { try await ask("kill \(node)") }

    private func ask(_ request: String) async throws {
        try await Self.offTheTestsThreads { [self] in
            try requests.write(contentsOf: Data((request + "\n").utf8))
            let answer = try answers.next()
            guard answer == "ok" else { throw Failure(description: "\(request): \(answer)") }
        }
    }

    /// There are few threads for tests: none of them should wait for the cluster.
    private static func offTheTestsThreads<Result: Sendable>(
        _ body: @escaping @Sendable () throws -> Result
    ) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            DispatchQueue.global().async { continuation.resume(with: .init(catching: body)) }
        }
    }

    private final class Answers: Sendable {
        private let handle: FileHandle
        init(_ handle: FileHandle) { self.handle = handle }

        func next() throws -> String {
            var line: [UInt8] = []
            while let byte = try handle.read(upToCount: 1)?.first, byte != UInt8(ascii: "\n") { line.append(byte) }
            return String(decoding: line, as: UTF8.self)
        }
    }

    /// Keeps the nodes' processes as its children, and ends them when its standard input does.
    private static let program = #"""
        import ctypes, json, os, shutil, signal, socket, subprocess, sys, tempfile, time

        replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        # A thread of the tests' pool starts this, and those block signals.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        folder = tempfile.mkdtemp(prefix="fr", dir="/tmp")
        libc = ctypes.CDLL(None)
        ray = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "ray")
        nodes = {}

        def free(host):
            with socket.socket() as s:
                s.bind((host, 0))
                return str(s.getsockname()[1])

        gcs, dashboard = free("127.0.0.2"), free("127.0.0.2")
        quick = {
            "RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4",
            "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_timeout_ms": "3000",
            "RAY_enable_metrics_collection": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1"}

        def before():
            os.setsid()
            libc.prctl(1, signal.SIGTERM)

        def start(node):
            common = ["--block", "--node-ip-address=" + node, "--num-cpus=4", "--num-gpus=2", "--object-store-memory=80000000",
                      "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=" + free(node),
                      "--disable-usage-stats", "--resources=" + json.dumps({"place" + node[-1]: 4})]
            if node == "127.0.0.2":
                common += ["--head", "--port=" + gcs, "--temp-dir=" + folder, "--dashboard-host=" + node,
                           "--dashboard-port=" + dashboard, "--ray-client-server-port=" + free(node)]
            else:
                common += ["--address=127.0.0.2:" + gcs]
            log = open(os.path.join(folder, "start-" + node + ".log"), "ab")
            nodes[node] = subprocess.Popen(
                [ray, "start"] + common, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=before,
                env=dict(os.environ, **quick))

        def wait(count):
            probe = ("import ray,sys,time\n"
                     "from ray._raylet import GcsClient\n"
                     "end=time.time()+90\n"
                     "while time.time()<end:\n"
                     "    try:\n"
                     "        all=GcsClient(address=sys.argv[1]).get_all_node_info()\n"
                     "        if sum(n.state==0 for n in all.values())==int(sys.argv[2]): sys.exit(0)\n"
                     "    except Exception as e: pass\n"
                     "    time.sleep(0.2)\n"
                     "sys.exit(1)\n")
            return subprocess.run(
                [sys.executable, "-c", probe, "127.0.0.2:" + gcs, str(count)], stdin=subprocess.DEVNULL).returncode == 0

        def family(process):
            parents = {}
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        text = open("/proc/" + name + "/stat").read()
                    except OSError:
                        continue
                    parents.setdefault(int(text[text.rindex(")") + 2:].split()[1]), []).append(int(name))
            found, left = [], [process]
            while left:
                found.append(left.pop())
                left += parents.get(found[-1], [])
            return found

        def kill(process):
            for number in family(process):
                try:
                    os.kill(number, signal.SIGKILL)
                except OSError:
                    pass

        def say(text):
            replies.write(text + "\n")
            replies.flush()

        start("127.0.0.2")
        ready = wait(1)
        if ready:
            start("127.0.0.3")
            ready = wait(2)
        if ready:
            say(json.dumps({"address": "127.0.0.2:" + gcs, "dashboard": "http://127.0.0.2:" + dashboard}))
        else:
            logs = [open(os.path.join(folder, n)).read()[-2000:] for n in os.listdir(folder) if n.endswith(".log")]
            say(json.dumps({"error": "\n".join(logs)}))
        for line in sys.stdin:
            work = line.split()
            if work[0] == "kill":
                kill(nodes[work[1]].pid)
                nodes.pop(work[1]).wait()
                say("ok")
            elif len(nodes) == 2 or wait(1) and (start("127.0.0.3") or wait(2)):
                say("ok")
            else:
                say("127.0.0.3 does not come up")
        for process in nodes.values():
            kill(process.pid)
        shutil.rmtree(folder, ignore_errors=True)
        """#
}
