import FoundationEssentials
import Subprocess

/// What goes to a worker for one item.
struct WorkerRequest: Encodable {
    let dataSource: String
    let solution: String
    let groundTruth: String
    let groundTruthJSON: String?
    let extraInfo: String?

    enum CodingKeys: String, CodingKey {
        case dataSource = "data_source"
        case solution = "solution_str"
        case groundTruth = "ground_truth"
        case groundTruthJSON = "ground_truth_json"
        case extraInfo = "extra_info"
    }

    init(_ item: RewardRequest) {
        dataSource = item.dataSource
        solution = item.response
        groundTruth = item.groundTruth
        groundTruthJSON = item.groundTruthJSON
        extraInfo = item.extraInfoJSON
    }

    /// The length in four bytes, the greatest first, and JSON.
    func frame() throws -> [UInt8] {
        let body = try JSONEncoder().encode(self)
        let length = UInt32(body.count)
        return [UInt8(length >> 24), UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255)] + body
    }
}

/// What comes back.
struct WorkerReply: Decodable {
    enum Kind: String, Decodable {
        case ready, begun, scored, raised, garbage
        case loadFailed = "load_failed"
        case nonFinite = "non_finite"
    }

    struct Detail: Decodable {
        let name: String
        let value: Double
    }

    let kind: Kind
    var message: String?
    var score: Double?
    var details: [Detail]?
}

/// Cuts a worker's output into replies.
struct ReplyReader {
    /// A reply with more bytes is none of the driver's.
    static let maximumLength = 1 << 20

    enum Next {
        case reply(WorkerReply)
        /// The worker closed its end.
        case end
        /// Bytes that are no reply.
        case broken
    }

    private var chunks: SubprocessOutputSequence.AsyncIterator
    private var bytes: [UInt8] = []

    init(_ output: SubprocessOutputSequence) { chunks = output.makeAsyncIterator() }

    mutating func next() async -> Next {
        while true {
            if bytes.count >= 4 {
                let length = bytes.prefix(4).reduce(0) { $0 << 8 | Int($1) }
                guard length <= Self.maximumLength else { return .broken }
                if bytes.count >= 4 + length {
                    let body = Data(bytes[4..<4 + length])
                    bytes.removeFirst(4 + length)
                    guard let reply = try? JSONDecoder().decode(WorkerReply.self, from: body) else { return .broken }
                    return .reply(reply)
                }
            }
            // A failed read ends the worker as the end of its output does.
            guard let chunk = try? await chunks.next(isolation: #isolation) else { return .end }
            chunk.withUnsafeBytes { bytes.append(contentsOf: $0) }
        }
    }
}
