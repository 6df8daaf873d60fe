import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Cluster

private final class Said: Sendable {
    private let all = Mutex<[String]>([])
    func add(_ stream: Launcher.Stream, _ name: String, _ line: String) {
        all.withLock { $0.append("\(name) \(stream == .output ? 1 : 2) \(line)") }
    }
    var lines: [String] { all.withLock { $0 } }
    var text: String { lines.joined(separator: "\n") }
    func has(_ line: String) -> Bool { lines.contains(line) }
}

/// What is said to and by the program beside Ray, without Ray.
@Suite struct RayEventTests {
    @Test func eventsAreRead() throws {
        func read(_ text: String) throws -> RayEvent { try RayEvent(Array(text.utf8)) }
        #expect(
            try read(#"{"event": "lines", "id": 3, "lines": [[1, "a"], [2, "é"]]}"#)
                == .lines(3, [.init(stream: 1, text: "a"), .init(stream: 2, text: "é")]))
        #expect(
            try read(#"{"event": "ended", "id": 1, "code": -9, "tail": ["x"]}"#) == .ended(1, code: -9, tail: ["x"]))
        #expect(
            try read(#"{"event": "lost", "id": 1, "message": "m", "node_lost": true}"#) == .lost(1, "m", nodeLost: true)
        )
    }

    @Test(arguments: [
        "", "null", "[]", "{}", "garbage", #"{"event": 3}"#, #"{"event": "dance"}"#, #"{"event": "started", "id": 1}"#,
        #"{"event": "started", "id": "x", "process": 1}"#, #"{"event": "lines", "id": 1, "lines": [["a", 1]]}"#,
        #"{"event": "ended", "id": 1, "code": 99999999999, "tail": []}"#, #"{"event": "ready"}"#,
        #"{"event": "lines", "id": 99999999999999999999, "lines": []}"#,
    ])
    func whatIsNoEventIsRefused(text: String) {
        #expect(throws: (any Error).self) { try RayEvent(Array(text.utf8)) }
    }

    /// An interpreter that says something else than our program would.
    private func connect(_ script: String) async throws -> RayWorkers {
        let file = FileManager.default.temporaryDirectory.appending(path: "python-\(UUID().uuidString)")
        try Data("#!/bin/sh\n\(script)\n".utf8).write(to: file)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
        defer { try? FileManager.default.removeItem(at: file) }
        var settings = RayWorkers.Settings(executable: "/bin/sh")
        settings.python = file.path
        return try await RayWorkers.connect(settings) { _, _, _ in }
    }

    @Test(arguments: [
        ("echo nonsense; sleep 100", "is no event: nonsense"),
        ("echo '{\"event\": \"ready\"}'; sleep 100", "is no event"),
        ("head -c 5000000 /dev/zero; sleep 100", "too long"),
        ("echo no ray here >&2; exit 3", "no ray here"),
        (#"echo '{"event": "failed", "message": "no room on the Ray cluster"}'; sleep 100"#, "no room on the Ray"),
    ])
    func aProgramThatMisbehavesIsAnError(script: String, message: String) async {
        let error = await #expect(throws: ClusterError.self) { try await connect(script) }
        #expect(error?.message.contains(message) == true, "\(String(describing: error))")
    }

    @Test func eventsOfUnknownWorkersAreLeftAlone() async throws {
        let ready = #"{"event": "ready", "ray": "2", "python": "3", "nodes": []}"#
        let strange = [
            #"{"event": "ended", "id": 7, "code": 0, "tail": []}"#, #"{"event": "started", "id": 7, "process": 1}"#,
            #"{"event": "refused", "id": 7, "message": ""}"#, #"{"event": "lines", "id": 7, "lines": [[1, "x"]]}"#,
        ]
        let workers = try await connect(
            (strange + [ready] + strange).map { "echo '\($0)'" }.joined(separator: "\n")
                + "\nread line; read line; exit 4")
        // It dies over a request: that is an error, not a wait for ever.
        await #expect(throws: ClusterError.self) {
            try await workers.start(WorkerProcessPlan(name: "w", arguments: []))
        }
        await workers.shutdown()
    }

    @Test func noPythonIsSaid() async {
        var settings = RayWorkers.Settings(executable: "/bin/sh")
        settings.python = "/no/such/python"
        let error = await #expect(throws: ClusterError.self) { try await RayWorkers.connect(settings) { _, _, _ in } }
        #expect(error?.message.contains("cluster.ray.python") == true)
    }
}

/// With a real cluster of two nodes.
@Suite(.serialized) struct RayTests {
    private func connect(
        _ cluster: RayCluster, _ strategy: RayWorkers.Strategy, _ bundles: [[String: Double]],
        patience: Duration = .seconds(60),
        said: Said = Said()
    ) async throws -> RayWorkers {
        var settings = RayWorkers.Settings(executable: "/bin/sh")
        settings.address = cluster.address
        settings.python = cluster.python
        settings.name = "test"
        settings.strategy = strategy
        settings.bundles = bundles
        settings.patience = patience
        settings.directory = "/tmp"
        return try await RayWorkers.connect(settings) { said.add($0, $1, $2) }
    }

    private func plan(
        _ name: String, _ script: String, bundle: Int? = nil, gpus: Int = 0, resources: [String: Double] = [:]
    ) -> WorkerProcessPlan {
        WorkerProcessPlan(
            name: name, arguments: ["-c", script], environment: ["GREETING": "hello"], gpus: gpus,
            resources: resources, bundle: bundle)
    }

    @Test func workersRunWhereTheyArePlacedAndAreSeen() async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            let said = Said()
            let workers = try await connect(
                cluster, .strictSpread, [["CPU": 1, "GPU": 1], ["CPU": 1, "GPU": 1]], said: said)
            #expect(await Set(workers.nodes.map(\.address)) == Set(RayCluster.nodes))
            #expect(await workers.nodes.map(\.gpus) == [2, 2])
            let script =
                "echo $GREETING $FLEDGE_NODE_ADDRESS \"[$CUDA_VISIBLE_DEVICES]\"; echo oh no >&2; read line; sleep 1000 & wait"
            var all: [any WorkerProcess] = []
            for index in 0..<2 {
                all.append(try await workers.start(plan("part/\(index)", script, bundle: index, gpus: 1)))
            }
            #expect(Set(all.map(\.node)) == Set(RayCluster.nodes))
            for worker in all {
                #expect(await holds(within: .seconds(60)) { said.has("\(worker.name) 1 hello \(worker.node) [0]") })
                #expect(await holds(within: .seconds(60)) { said.has("\(worker.name) 2 oh no") })
                #expect(FileManager.default.fileExists(atPath: "/proc/\(worker.processID)"))
            }
            // What `ray list actors` and `ray status` show, which the dashboard does too.
            let jobs = try RayJobs(address: cluster.dashboard)
            for (path, texts) in [
                ("api/v0/actors", ["test/part/0", "test/part/1"]),
                ("api/cluster_status?format=1", ["2.0/4.0 GPU", "2.0/8.0 CPU"]),
            ] {
                var answer = ""
                _ = try await holds(within: .seconds(60), every: .milliseconds(50)) {
                    answer = String(decoding: try await jobs.bytes(path), as: UTF8.self)
                    return texts.allSatisfy { answer.contains($0) }
                }
                for text in texts { #expect(answer.contains(text), "\(answer)") }
            }

            await all[0].signal(SIGTERM)
            let end = await all[0].ended()
            #expect(end.exit == .signaled(SIGTERM) && end.standardErrorTail == ["oh no"] && !end.nodeLost)
            await workers.shutdown()
            let last = await all[1].ended()
            #expect(last.exit == .signaled(SIGKILL))
            #expect(
                await holds(within: .seconds(60)) {
                    !FileManager.default.fileExists(atPath: "/proc/\(all[1].processID)")
                })
        }
    }

    @Test(arguments: [(RayWorkers.Strategy.strictPack, 1), (.pack, 1), (.spread, 2)])
    func strategiesPlace(strategy: RayWorkers.Strategy, nodes: Int) async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            let workers = try await connect(cluster, strategy, [["CPU": 1], ["CPU": 1]])
            var found: Set<String> = []
            for index in 0..<2 {
                let worker = try await workers.start(plan("w\(index)", "exit \(index)", bundle: index))
                found.insert(worker.node)
                #expect(await worker.ended().exit == .exited(Int32(index)))
            }
            #expect(found.count == nodes)
            await workers.shutdown()
        }
    }

    @Test func customResourcesDecideThePlace() async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            let workers = try await connect(cluster, .pack, [["CPU": 1, "place3": 1], ["CPU": 1, "place2": 1]])
            for (index, place) in ["place3", "place2"].enumerated() {
                let worker = try await workers.start(plan("w\(index)", "true", bundle: index, resources: [place: 1]))
                #expect(worker.node == "127.0.0.\(place.last ?? "?")")
            }
            await workers.shutdown()
        }
    }

    @Test func whereThereIsNoRoomItIsSaid() async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            let error = await #expect(throws: ClusterError.self) {
                try await connect(cluster, .strictSpread, [["CPU": 1], ["CPU": 1], ["CPU": 1]], patience: .seconds(2))
            }
            #expect(error?.code == .noRoom)
            #expect(
                error?.message.contains("3 bundles of CPU 1, placed by STRICT_SPREAD") == true,
                "\(String(describing: error))")
            #expect(error?.message.contains("127.0.0.3: CPU 4") == true, "\(String(describing: error))")
        }
    }

    @Test func whatCannotStartIsSaid() async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            var settings = RayWorkers.Settings(executable: "/no/such/program")
            settings.address = cluster.address
            settings.python = cluster.python
            settings.bundles = [["CPU": 1]]
            settings.directory = "/tmp"
            let workers = try await RayWorkers.connect(settings) { _, _, _ in }
            let error = await #expect(throws: ClusterError.self) {
                try await workers.start(plan("w", "true", bundle: 0))
            }
            #expect(error?.message.contains("/no/such/program") == true, "\(String(describing: error))")
            await workers.shutdown()
        }
    }

    /// Ranks of a shell script: rank 1's node goes, all are started anew elsewhere, and the run ends well.
    @Test func aLostNodeIsNamedAndTheRanksGoOnElsewhere() async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            let file = FileManager.default.temporaryDirectory.appending(path: "ran-\(UUID().uuidString)").path
            defer { try? FileManager.default.removeItem(atPath: file) }
            // The second time they are there, they end well.
            let script = """
                echo "$RANK/$WORLD_SIZE at $FLEDGE_NODE_ADDRESS of $MASTER_ADDR [$ONCE]"; echo $RANK >> \(file)
                while [ $(wc -l < \(file)) -lt 4 ]; do
                  sleep 0.1
                  [ $RANK = 0 ] && [ -e \(file).lost ] && { rm \(file).lost; exit 75; }
                done
                exit 0
                """
            var settings = RayWorkers.Settings(executable: "/bin/sh")
            settings.address = cluster.address
            settings.python = cluster.python
            settings.name = "ranks"
            settings.strategy = .spread
            settings.directory = "/tmp"
            var plan = RayRanks.Plan(settings, places: 2, perPlace: 1, arguments: ["-c", script])
            plan.environment = ["ONCE": "once"]
            plan.firstStartOnly = ["ONCE"]
            plan.restarts = 1
            let said = Said()
            let ranks = RayRanks(plan) { said.add($0, "", $1) }
            async let code = ranks.run()
            #expect(
                await holds(within: .seconds(60)) { said.lines.filter { $0.contains("/2 at 127.0.0.") }.count == 2 })
            // Of the node that rank 0 is not on; the head must stay.
            let first = said.lines.first { $0.contains("0/2 at ") } ?? ""
            #expect(first.contains("127.0.0."))
            try await cluster.kill("127.0.0.3")
            // As a rank whose peer is gone does.
            if first.contains("at 127.0.0.2") { FileManager.default.createFile(atPath: file + ".lost", contents: nil) }
            let result = try await code
            #expect(result == 0, "\(said.text)")
            #expect(said.text.contains("on 127.0.0.3) is lost with its node"), "\(said.text)")
            #expect(said.text.contains("started anew, and go on from the last checkpoint (1 of"), "\(said.text)")
            #expect(said.lines.filter { $0.contains("/2 at 127.0.0.2") }.count >= 2, "\(said.text)")
            #expect(said.lines.count { $0.hasSuffix("[once]") } == 2, "\(said.text)")
            #expect(said.lines.count { $0.hasSuffix("[]") } == 2, "\(said.text)")
        }
    }

    @Test func aRankThatFailsByItselfEndsTheOthersAndIsNotStartedAnew() async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            var settings = RayWorkers.Settings(executable: "/bin/sh")
            settings.address = cluster.address
            settings.python = cluster.python
            settings.directory = "/tmp"
            var plan = RayRanks.Plan(
                settings, places: 1, perPlace: 2,
                arguments: ["-c", "[ $RANK = 1 ] && { echo why >&2; exit 4; }; sleep 1000"])
            plan.grace = .milliseconds(100)
            plan.restarts = 5
            let said = Said()
            let code = try await RayRanks(plan) { said.add($0, "", $1) }.run()
            #expect(code == 4)
            #expect(said.text.contains("ended with exit code 4") && said.text.contains("  why"), "\(said.text)")
            #expect(said.text.contains("rank 0 on 127.0.0.") && said.text.contains("does not end, and is killed"))
            #expect(!said.text.contains("anew"))
        }
    }

    // MARK: - Jobs

    @Test func jobsAreSubmittedFollowedAndStopped() async throws {
        try await RayCluster.use(for: "RayTests") { cluster in
            let jobs = try RayJobs(address: cluster.dashboard)
            #expect(try await jobs.version().first?.isNumber == true)
            #expect(try await jobs.nodes().filter(\.isAlive).count == 2)
            var package = JobPackage()
            try package.add(text: "from the package\n", as: "data/note.txt")
            let folder = try await jobs.upload(package)
            #expect(try await jobs.upload(package) == folder)
            let id = try await jobs.submit(
                "cat data/note.txt; echo $WORD; sleep 2; echo é last; exit 3", id: nil, workingDirectory: folder,
                environment: ["WORD": "variable"], metadata: ["a": "b"])
            let log = Mutex("")
            let job = try await jobs.follow(id) { new in log.withLock { $0 += new } }
            #expect(job.status == .failed && job.outcome == 3, "\(job)")
            let text = log.withLock { $0 }
            // Ray writes lines of its own among them.
            let own = ["from the package", "variable", "é last"]
            #expect(text.split(separator: "\n").map(String.init).filter { own.contains($0) } == own, "\(text)")

            let long = try await jobs.submit(
                "sleep 1000", id: "test-\(UUID().uuidString)", workingDirectory: nil, environment: [:], metadata: [:])
            #expect(try await jobs.stop(long))
            #expect(try await jobs.follow(long) { _ in }.outcome == 130)
            let error = await #expect(throws: ClusterError.self) { try await jobs.job("no-such-job") }
            #expect(error?.code == .noJob)
        }
    }
}

@Suite struct JobPackageTests {
    private func folder() throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appending(path: "package-\(UUID().uuidString)")
        try FileManager.default.createDirectory(
            at: folder.appending(path: "sub/.hidden"), withIntermediateDirectories: true)
        for (name, text) in [("a.yaml", "a"), ("sub/b.py", "b"), ("sub/.hidden/c", "c"), ("é.txt", "")] {
            try Data(text.utf8).write(to: folder.appending(path: name))
        }
        return folder
    }

    @Test func filesAndFoldersGoAlong() throws {
        let folder = try folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        var package = JobPackage()
        try package.add("a.yaml", of: folder)
        try package.add("sub", of: folder)
        try package.add(folder.appending(path: "é.txt").path, of: folder)
        try package.add("./a.yaml", of: folder)
        #expect(package.paths == ["a.yaml", "sub/b.py", "é.txt"])
        #expect(JobPackage.name(of: package.bytes) == JobPackage.name(of: package.bytes))
        for path in ["../x", "/etc/passwd", "nothing"] {
            #expect(throws: ClusterError.self) { try package.add(path, of: folder) }
        }
    }

    /// By another program's reading.
    @Test func archivesAreZIP() throws {
        var archive = ZipArchive()
        try archive.add("a/b.txt", Array("hello\n".utf8))
        try archive.add("run", [UInt8](repeating: 7, count: 100_000), isExecutable: true)
        for path in ["", "/a", "a/../b", "./a", "a//b", ".."] {
            #expect(throws: ClusterError.self) { try archive.add(path, []) }
        }
        let file = FileManager.default.temporaryDirectory.appending(path: "\(UUID().uuidString).zip")
        try Data(archive.bytes).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let process = Process(), output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "python3", "-c",
            """
            import sys, zipfile
            z = zipfile.ZipFile(sys.argv[1])
            print(z.testzip(), [(i.filename, i.file_size, oct(i.external_attr >> 16)) for i in z.infolist()], z.read("a/b.txt"))
            """, file.path,
        ]
        process.standardOutput = output
        try process.run()
        process.waitUntilExit()
        let text = String(decoding: try output.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        #expect(
            text == "None [('a/b.txt', 6, '0o100644'), ('run', 100000, '0o100755')] b'hello\\n'\n", "\(text)")
    }

    @Test func jobsWithAFolderAreKnown() {
        #expect(RayJobs.hasFolder([RayJobs.jobVariable: #"{"runtime_env": {"working_dir": "gcs://x.zip"}}"#]))
        for text in ["", "x", "{}", #"{"runtime_env": {}}"#] {
            #expect(!RayJobs.hasFolder([RayJobs.jobVariable: text]))
        }
        #expect(!RayJobs.hasFolder([:]))
    }
}
