public import Foundation
import Tokenizers

extension Benchmarks {
    /// How fast a tokenizer loads, encodes and decodes; the best of several runs each.
    public struct TokenizerMeasurement: Sendable {
        public var kind: String
        public var vocabulary: Int
        public var textBytes: Int
        public var tokens: Int
        /// FNV-1a over the ids, so that two libraries' outputs can be told apart without writing them down.
        public var checksum: UInt64
        public var loadSeconds: Double
        public var encodeSeconds: Double
        /// The text cut into `documents`, on `threads` threads.
        public var documents: Int
        public var threads: Int
        public var batchSeconds: Double
        public var decodeSeconds: Double
    }

    /// - Parameter documentBytes: the batch is the text cut at line ends into parts of about so many bytes.
    /// - Throws: `TokenizerError`, or what reading the text throws.
    public static func tokenizer(
        folder: URL, text file: URL, threads: Int, documentBytes: Int, repeats: Int
    ) throws -> TokenizerMeasurement {
        func best(_ body: () throws -> Void) rethrows -> Double {
            var least = Double.infinity
            for _ in 0..<max(1, repeats) {
                let start = ContinuousClock.now
                try body()
                least = min(least, (ContinuousClock.now - start) / .seconds(1))
            }
            return least
        }
        guard let data = try? Data(contentsOf: file), let text = String(data: data, encoding: .utf8) else {
            throw WorkerError(.badData, "\(file.path): cannot be read as UTF-8 text")
        }
        var opened = try TokenizerFolder(folder)
        let load = try best { opened = try TokenizerFolder(folder) }
        let tokenizer = opened.tokenizer
        var ids: [Int32] = []
        let encode = try best { ids = try tokenizer.encode(text) }
        let documents = Self.documents(data, bytes: documentBytes)
        var rows = 0
        let batch = try best { rows = try tokenizer.encodeBatch(documents, threads: threads).count }
        precondition(rows == documents.count)
        let decode = best { _ = tokenizer.decode(ids, skipSpecialTokens: false) }
        let checksum = ids.reduce(into: UInt64(14_695_981_039_346_656_037)) {
            $0 = ($0 ^ UInt64(UInt32(bitPattern: $1))) &* 1_099_511_628_211
        }
        return TokenizerMeasurement(
            kind: opened.kind.rawValue, vocabulary: tokenizer.vocabularyCount, textBytes: data.count, tokens: ids.count,
            checksum: checksum, loadSeconds: load, encodeSeconds: encode, documents: documents.count, threads: threads,
            batchSeconds: batch, decodeSeconds: decode)
    }

    private static func documents(_ text: Data, bytes: Int) -> [String] {
        var documents: [String] = []
        var start = text.startIndex
        while start < text.endIndex {
            let least = min(start + max(1, bytes), text.endIndex)
            let end = text[least...].firstIndex(of: 0x0A).map { $0 + 1 } ?? text.endIndex
            documents.append(String(decoding: text[start..<end], as: UTF8.self))
            start = end
        }
        return documents
    }
}
