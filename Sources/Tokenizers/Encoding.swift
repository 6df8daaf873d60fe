/// A text as token ids, with where each comes from. All arrays are of one length.
public struct Encoding: Hashable, Sendable {
    public var ids: [Int32] = []
    /// The spelling of each token; for added tokens, and for what Unigram does not know, the text that was found.
    public var tokens: [String] = []
    /// 0 for the first text and 1 for the second, unless the template says otherwise.
    public var typeIDs: [Int32] = []
    /// UTF-8 bytes of the text that the token stands for; empty for added special tokens and padding.
    public var byteOffsets: [Range<Int>] = []
    /// The same in unicode scalars, which is what Python calls characters.
    public var characterOffsets: [Range<Int>] = []
    /// 1 where a template or padding put the token in.
    public var specialTokensMask: [UInt8] = []
    /// 0 for padding, else 1.
    public var attentionMask: [UInt8] = []

    public init() {}

    public var count: Int { ids.count }

    mutating func append(_ other: Encoding) {
        ids += other.ids
        tokens += other.tokens
        typeIDs += other.typeIDs
        byteOffsets += other.byteOffsets
        characterOffsets += other.characterOffsets
        specialTokensMask += other.specialTokensMask
        attentionMask += other.attentionMask
    }

    /// A token that stands for no text.
    static func added(_ id: Int32, _ token: String, typeID: Int32) -> Encoding {
        var encoding = Encoding()
        encoding.ids = [id]
        encoding.tokens = [token]
        encoding.typeIDs = [typeID]
        encoding.byteOffsets = [0..<0]
        encoding.characterOffsets = [0..<0]
        encoding.specialTokensMask = [1]
        encoding.attentionMask = [1]
        return encoding
    }

    mutating func setTypeID(_ typeID: Int32) {
        typeIDs = [Int32](repeating: typeID, count: ids.count)
    }

    mutating func keep(_ range: Range<Int>) {
        ids = Array(ids[range])
        tokens = Array(tokens[range])
        typeIDs = Array(typeIDs[range])
        byteOffsets = Array(byteOffsets[range])
        characterOffsets = Array(characterOffsets[range])
        specialTokensMask = Array(specialTokensMask[range])
        attentionMask = Array(attentionMask[range])
    }
}
