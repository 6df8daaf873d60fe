import FoundationEssentials
import PythonProcesses

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

    func frame() throws -> [UInt8] { FrameReader.frame(try JSONEncoder().encode(self)) }
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

extension FrameReader {
    enum NextReply {
        case reply(WorkerReply)
        /// The worker closed its end.
        case end
        /// Bytes that are no reply.
        case broken
    }

    mutating func nextReply() async -> NextReply {
        switch await next() {
        case .frame(let body):
            guard let reply = try? JSONDecoder().decode(WorkerReply.self, from: Data(body)) else { return .broken }
            return .reply(reply)
        case .end: return .end
        case .broken: return .broken
        }
    }
}
