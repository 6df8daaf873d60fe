import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1

/// Ray's Jobs interface over HTTP, at the dashboard's address.
public struct RayJobs: Sendable {
    /// Set by Ray for a job's own process.
    public static let jobVariable = "RAY_JOB_CONFIG_JSON_ENV_VAR"

    /// Whether this process is of a job that has a working folder on each node.
    public static func hasFolder(_ variables: [String: String]) -> Bool {
        struct Job: Decodable {
            struct Runtime: Decodable { var working_dir: String? }
            var runtime_env: Runtime?
        }
        guard let text = variables[jobVariable], let job = try? JSONDecoder().decode(Job.self, from: Data(text.utf8))
        else {
            return false
        }
        return job.runtime_env?.working_dir != nil
    }

    private let base: URL
    private let headers: [String: String]

    /// - Parameters:
    ///   - address: as `http://10.0.0.1:8265`.
    ///   - headers: to send along, as a token.
    /// - Throws: ``ClusterError`` with code `noCluster` for what is no address.
    public init(address: String, headers: [String: String] = [:]) throws(ClusterError) {
        guard let url = URL(string: address.contains("://") ? address : "http://" + address), url.host != nil,
            ["http", "https"].contains(url.scheme)
        else { throw ClusterError(.noCluster, "'\(address)' is no address of a Ray dashboard; write http://host:8265") }
        base = url
        self.headers = headers
    }

    public struct Job: Sendable, Hashable {
        public enum Status: String, Sendable, Decodable {
            case pending = "PENDING"
            case running = "RUNNING"
            case stopped = "STOPPED"
            case succeeded = "SUCCEEDED"
            case failed = "FAILED"
        }
        public var status: Status
        public var message: String
        /// Of the command; nil while it runs, and where it never ran.
        public var exitCode: Int32?

        public var isOver: Bool { status != .pending && status != .running }

        /// What a command that followed it ends with.
        public var outcome: Int32 {
            switch status {
            case .succeeded: 0
            case .stopped: 130
            case .failed, .pending, .running: exitCode.map { $0 == 0 ? 1 : $0 > 0 && $0 < 256 ? $0 : 1 } ?? 1
            }
        }
    }

    /// Ray's version.
    public func version() async throws -> String {
        struct Answer: Decodable { var ray_version: String }
        return try await get("api/version", Answer.self).ray_version
    }

    /// A node as the dashboard sees it; what it does not say is nil.
    public struct Node: Sendable, Hashable {
        public var address: String
        public var isAlive: Bool
        public var gpus: Int?
        /// Free bytes of the disk.
        public var freeDisk: Int?
    }

    /// The cluster's nodes.
    public func nodes() async throws -> [Node] {
        struct Answer: Decodable {
            struct Body: Decodable { var summary: [Summary] }
            struct Summary: Decodable {
                struct Raylet: Decodable { var state: String? }
                struct GPU: Decodable {}
                struct Disk: Decodable { var free: Double? }
                var ip: String?
                var raylet: Raylet?
                var gpus: [GPU]?
                var disk: [String: Disk]?
            }
            var data: Body
        }
        return try await get("nodes?view=summary", Answer.self).data.summary.map { node in
            Node(
                address: node.ip ?? "?", isAlive: node.raylet?.state == "ALIVE", gpus: node.gpus?.count,
                freeDisk: node.disk?["/"]?.free.flatMap { Int(exactly: $0.rounded()) })
        }
    }

    /// Sends the files of a job, unless they are there already.
    /// - Returns: the address that Ray knows them by.
    public func upload(_ package: JobPackage) async throws -> String {
        let bytes = package.bytes
        let name = JobPackage.name(of: bytes)
        if try await send("GET", "api/packages/gcs/\(name)", allowing: 404).status == 200 { return "gcs://\(name)" }
        _ = try await send("PUT", "api/packages/gcs/\(name)", bytes)
        return "gcs://\(name)"
    }

    /// Submits a job.
    /// - Parameters:
    ///   - entrypoint: a line for the shell.
    ///   - id: unlike any other; nil: Ray makes one.
    /// - Returns: its id.
    public func submit(
        _ entrypoint: String, id: String?, workingDirectory: String?, environment: [String: String],
        metadata: [String: String]
    ) async throws -> String {
        struct Runtime: Encodable {
            var working_dir: String?
            var env_vars: [String: String]
        }
        struct Request: Encodable {
            var entrypoint: String
            var submission_id: String?
            var runtime_env: Runtime
            var metadata: [String: String]
        }
        struct Answer: Decodable { var submission_id: String }
        let request = Request(
            entrypoint: entrypoint, submission_id: id,
            runtime_env: Runtime(working_dir: workingDirectory, env_vars: environment), metadata: metadata)
        let body = try await send("POST", "api/jobs/", Array(JSONEncoder().encode(request))).body
        return try decode(Answer.self, body, "api/jobs/").submission_id
    }

    public func job(_ id: String) async throws -> Job {
        struct Answer: Decodable {
            var status: Job.Status
            var message: String?
            var driver_exit_code: Int32?
        }
        let answer = try await get("api/jobs/\(try escaped(id))", Answer.self)
        return Job(status: answer.status, message: answer.message ?? "", exitCode: answer.driver_exit_code)
    }

    /// Asks a job to end.
    /// - Returns: whether it ran.
    public func stop(_ id: String) async throws -> Bool {
        struct Answer: Decodable { var stopped: Bool }
        let body = try await send("POST", "api/jobs/\(try escaped(id))/stop", []).body
        return try decode(Answer.self, body, "stop").stopped
    }

    /// All that the job has written so far.
    public func logs(_ id: String) async throws -> String {
        struct Answer: Decodable { var logs: String? }
        return try await get("api/jobs/\(try escaped(id))/logs", Answer.self).logs ?? ""
    }

    /// Waits for a job's end. Ray gives the whole log at every call: it is asked for once a second, and less often where that takes
    /// long. A dashboard that does not answer is asked again for a minute.
    /// - Parameter write: takes what is new of the log.
    public func follow(_ id: String, write: (String) -> Void) async throws -> Job {
        var written = 0
        var silentSince: ContinuousClock.Instant?
        while true {
            let start = ContinuousClock.now
            do {
                // The state first: what the job wrote before its end is then in the log.
                let job = try await job(id)
                var text = try await logs(id).unicodeScalars[...]
                // A character that is half written shows as U+FFFD, until the rest of it is there.
                while !job.isOver, text.last == "\u{FFFD}" { text.removeLast() }
                let log = String(text).utf8
                if log.count < written { written = 0 }
                let new = String(decoding: log.dropFirst(written), as: UTF8.self)
                if !new.isEmpty { write(new) }
                written = log.count
                if job.isOver { return job }
                silentSince = nil
            } catch let error as ClusterError {
                guard error.code == .noCluster else { throw error }
                if silentSince == nil { silentSince = start }
                if let silentSince, ContinuousClock.now - silentSince > .seconds(60) { throw error }
            }
            try await Task.sleep(for: max(.seconds(1), (ContinuousClock.now - start) * 10))
        }
    }

    // MARK: - HTTP

    private func escaped(_ id: String) throws(ClusterError) -> String {
        guard !id.isEmpty, id.utf8.allSatisfy({ $0 > 32 && $0 < 127 && !"/?#%".utf8.contains($0) }) else {
            throw ClusterError(.noJob, "'\(id)' is no job's id")
        }
        return id
    }

    /// What is at a path, for what this has no name for.
    func bytes(_ path: String) async throws -> [UInt8] { try await send("GET", path).body }

    private func get<Answer: Decodable>(_ path: String, _ type: Answer.Type) async throws -> Answer {
        try decode(type, try await send("GET", path).body, path)
    }

    private func decode<Answer: Decodable>(_ type: Answer.Type, _ body: [UInt8], _ path: String) throws -> Answer {
        do { return try JSONDecoder().decode(type, from: Data(body)) } catch {
            let text = String(decoding: body.prefix(200), as: UTF8.self)
            throw ClusterError(
                .noCluster, "\(base.absoluteString)/\(path) answers with what is no answer of Ray's: \(text)")
        }
    }

    private static let mostBytes = 1 << 28

    private func send(
        _ method: String, _ path: String, _ body: [UInt8]? = nil, allowing allowed: Int = 200
    ) async throws -> (status: Int, body: [UInt8]) {
        let place = base.absoluteString.hasSuffix("/") ? base.absoluteString + path : base.absoluteString + "/" + path
        var request = HTTPClientRequest(url: place)
        request.method = .RAW(value: method)
        for (name, value) in headers { request.headers.replaceOrAdd(name: name, value: value) }
        if let body {
            request.headers.replaceOrAdd(
                name: "Content-Type", value: method == "PUT" ? "application/octet-stream" : "application/json")
            request.body = .bytes(ByteBuffer(bytes: body))
        }
        let status: Int
        let answer: [UInt8]
        do {
            let response = try await HTTPClient.shared.execute(
                request, timeout: .seconds(method == "PUT" ? 600 : path.hasSuffix("/logs") ? 60 : 15))
            status = Int(response.status.code)
            answer = Array((try await response.body.collect(upTo: Self.mostBytes)).readableBytesView)
        } catch {
            throw ClusterError(.noCluster, "no answer from Ray's dashboard at \(base.absoluteString): \(error)")
        }
        if (200..<300).contains(status) || status == allowed { return (status, answer) }
        let text = String(decoding: answer.prefix(2000), as: UTF8.self)
        throw ClusterError(
            status == 404 ? .noJob : .refusedJob,
            "Ray's dashboard at \(base.absoluteString) answers \(method) \(path) with \(status): \(text)"
        )
    }
}

extension ClusterError.Code {
    /// There is no such job.
    public static let noJob = ClusterError.Code("noJob")
    /// Ray does not take the job, or what is asked of it.
    public static let refusedJob = ClusterError.Code("refusedJob")
}
