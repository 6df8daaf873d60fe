import Foundation

/// A node of a Ray cluster that is alive.
public struct RayNode: Sendable, Hashable, Codable {
    public var address: String
    public var hostname: String
    public var id: String
    public var cpus: Double
    public var gpus: Double
    /// Bytes of its object store.
    public var store: Double
}

/// What a supervisor found on its node.
public struct RayPlace: Sendable, Hashable, Codable {
    /// The node's address.
    public var node: String
    public var hostname: String
    /// The GPUs that Ray gave, as `CUDA_VISIBLE_DEVICES` counts them.
    public var gpus: [String]
    /// Of a socket that listens there, which the process inherits; nil where none was asked for.
    public var port: Int?
    /// The supervisor's working folder: the job's, where it was submitted with one.
    public var directory: String
    public var cores: Int
    /// Bytes of `/dev/shm`, and of the disk that Ray spills objects to.
    public var shmTotal, shmFree, spillFree: Int
    public var openFiles: Int

    enum CodingKeys: String, CodingKey {
        case node, hostname, gpus, port, directory, cores
        case shmTotal = "shm_total"
        case shmFree = "shm_free"
        case spillFree = "spill_free"
        case openFiles = "open_files"
    }
}

/// What the program beside Ray says; see ``RayProgram``.
enum RayEvent: Hashable {
    case ready(ray: String, python: String, nodes: [RayNode])
    /// Nothing can go on.
    case failed(String)
    case note(String)
    case placed(Int, RayPlace)
    /// A worker could not be placed or started.
    case refused(Int, String)
    case started(Int, process: Int32)
    /// 1 for standard output, 2 for standard error.
    case lines(Int, [Line])
    case ended(Int, code: Int32, tail: [String])
    case lost(Int, String, nodeLost: Bool)

    struct Line: Hashable, Decodable {
        var stream: Int
        var text: String

        init(stream: Int, text: String) {
            self.stream = stream
            self.text = text
        }

        init(from decoder: any Decoder) throws {
            var values = try decoder.unkeyedContainer()
            stream = try values.decode(Int.self)
            text = try values.decode(String.self)
        }
    }

    /// - Throws: `DecodingError` for what is none.
    init(_ line: [UInt8]) throws { self = try JSONDecoder().decode(Wire.self, from: Data(line)).event }

    private struct Wire: Decodable {
        var event: RayEvent

        enum Key: String, CodingKey {
            case event, ray, python, nodes, message, id, facts, process, lines, code, tail
            case nodeLost = "node_lost"
        }

        init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: Key.self)
            func number() throws -> Int { try values.decode(Int.self, forKey: .id) }
            func message() throws -> String { try values.decode(String.self, forKey: .message) }
            switch try values.decode(String.self, forKey: .event) {
            case "ready":
                event = .ready(
                    ray: try values.decode(String.self, forKey: .ray),
                    python: try values.decode(String.self, forKey: .python),
                    nodes: try values.decode([RayNode].self, forKey: .nodes))
            case "failed": event = .failed(try message())
            case "note": event = .note(try message())
            case "placed": event = .placed(try number(), try values.decode(RayPlace.self, forKey: .facts))
            case "refused": event = .refused(try number(), try message())
            case "started": event = .started(try number(), process: try values.decode(Int32.self, forKey: .process))
            case "lines": event = .lines(try number(), try values.decode([Line].self, forKey: .lines))
            case "ended":
                event = .ended(
                    try number(), code: try values.decode(Int32.self, forKey: .code),
                    tail: try values.decode([String].self, forKey: .tail))
            case "lost":
                event = .lost(try number(), try message(), nodeLost: try values.decode(Bool.self, forKey: .nodeLost))
            case let other:
                throw DecodingError.dataCorruptedError(
                    forKey: .event, in: values, debugDescription: "there is no event '\(other)'")
            }
        }
    }
}

/// What the program beside Ray is asked.
struct RayRequest: Encodable {
    var op: String
    var id: Int?
    // connect
    var address: String?
    var name: String?
    var strategy: String?
    var bundles: [[String: Double]]?
    var patience: Double?
    // place
    var bundle: Int?
    var cpus: Int?
    var gpus: Int?
    var resources: [String: Double]?
    var listens: Bool?
    // run
    var arguments: [String]?
    var environment: [String: String]?
    var directory: String?
    // signal
    var signal: Int32?

    init(_ op: String, id: Int? = nil) {
        self.op = op
        self.id = id
    }

    var line: [UInt8] {
        // A number that JSON has no word for is a broken invariant: settings are checked before.
        guard let data = try? JSONEncoder().encode(self) else { preconditionFailure("a request that is no JSON") }
        return Array(data) + [UInt8(ascii: "\n")]
    }
}
