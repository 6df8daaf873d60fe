/// What is wrong with a model, a checkpoint or the disk they are on.
public struct CheckpointError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// Nothing is at the path.
        public static let notFound = Code("notFound")
        /// The system refused to read or write.
        public static let inputOutput = Code("inputOutput")
        /// The file ends before what its header promises.
        public static let truncated = Code("truncated")
        /// The file breaks its format.
        public static let malformed = Code("malformed")
        /// A format, type or feature that is not read here.
        public static let unsupported = Code("unsupported")
        /// The model family has no reader.
        public static let unknownArchitecture = Code("unknownArchitecture")
        /// A tensor that was asked for, or that an index promises, is absent.
        public static let missingTensor = Code("missingTensor")
        /// Two things carry one name.
        public static let duplicate = Code("duplicate")
        /// A file name leads out of the model's folder.
        public static let unsafePath = Code("unsafePath")
        /// The file is a git-lfs pointer, not the weights.
        public static let gitLFSPointer = Code("gitLFSPointer")
        /// The weights are a Python pickle, which can run code.
        public static let pickle = Code("pickle")
        /// `config.json` lacks a key or holds the wrong type.
        public static let configuration = Code("configuration")
        /// There is less room on the disk than is needed.
        public static let diskFull = Code("diskFull")
        /// A checkpoint's content does not match its digest.
        public static let damaged = Code("damaged")
        /// Another rank failed, which says itself why.
        public static let otherRank = Code("otherRank")
    }

    public let code: Code
    /// The file or folder.
    public let place: String
    /// What is wrong, with the values.
    public let message: String
    /// What to do about it; empty when nothing is known.
    public let remedy: String
    /// For `diskFull`: bytes wanted, and bytes free (nil when the disk filled up during a write).
    public let neededBytes: UInt64?
    public let freeBytes: UInt64?

    public init(
        _ code: Code, _ place: String, _ message: String, remedy: String = "", neededBytes: UInt64? = nil,
        freeBytes: UInt64? = nil
    ) {
        self.code = code
        self.place = place
        self.message = message
        self.remedy = remedy
        self.neededBytes = neededBytes
        self.freeBytes = freeBytes
    }

    public var description: String { "\(place): \(message)" + (remedy.isEmpty ? "" : " (\(remedy))") }
}
