public import Foundation

/// What a SentencePiece `tokenizer.model` holds (`sentencepiece_model.proto`), as far as encoding and decoding need it.
public struct SentencePieceModel: Sendable {
    public enum Kind: Int, Sendable { case unigram = 1, bpe, word, character }

    public enum PieceType: Int, Sendable { case normal = 1, unknown, control, userDefined, unused, byte }

    public struct Piece: Sendable {
        public var spelling: [UInt8]
        public var score: Float
        public var type: PieceType
    }

    public var kind = Kind.unigram
    public var pieces: [Piece] = []
    public var hasByteFallback = false
    public var treatsWhitespaceAsSuffix = false
    /// Ids of the control tokens; -1 if the model has none.
    public var bosID = 1
    public var eosID = 2
    public var padID = -1
    /// `trainer_spec.unk_id`; encoding goes by the type of the piece.
    public var declaredUnknownID = 0
    /// What decoding puts in the place of the unknown piece.
    public var unknownSurface = Array(" \u{2047} ".utf8)
    public var addsDummyPrefix = true
    public var removesExtraWhitespace = true
    public var escapesWhitespace = true
    /// The normalizer's table of replacements; empty for none.
    public var charsmap: [UInt8] = []

    init(kind: Kind) { self.kind = kind }

    /// Reads a file.
    ///
    /// - Throws: `TokenizerError`, with the file and the field.
    public init(contentsOf file: URL) throws {
        self = try TokenizerFile.read(file) { try SentencePieceModel(bytes: $0) }
    }

    /// Reads a serialized `ModelProto`.
    ///
    /// - Throws: `TokenizerError` (`invalidModel`, `unsupported`).
    public init(bytes: [UInt8]) throws {
        var reader = ProtobufReader(bytes, 0..<bytes.count, at: "model")
        while let field = try reader.next() {
            switch field.number {
            case 1:
                guard pieces.count <= Vocabulary.maximumID else {
                    throw reader.failure("more than \(Vocabulary.maximumID) pieces", field.offset)
                }
                pieces.append(try Piece(bytes, field.range("pieces"), index: pieces.count))
            case 2: try readTrainer(bytes, field.range("trainer_spec"))
            case 3: try readNormalizer(bytes, field.range("normalizer_spec"))
            case 5: try checkDenormalizer(bytes, field.range("denormalizer_spec"))
            default: break
            }
        }
        try check()
    }

    private mutating func readTrainer(_ bytes: [UInt8], _ range: Range<Int>) throws {
        var reader = ProtobufReader(bytes, range, at: "trainer_spec")
        while let field = try reader.next() {
            switch field.number {
            case 3:
                let number = try field.integer("trainer_spec.model_type")
                guard let kind = Kind(rawValue: number) else {
                    throw TokenizerError(.invalidModel, "trainer_spec.model_type is \(number): expected 1 to 4")
                }
                self.kind = kind
            case 24: treatsWhitespaceAsSuffix = try field.bool("trainer_spec.treat_whitespace_as_suffix")
            case 35: hasByteFallback = try field.bool("trainer_spec.byte_fallback")
            case 40: declaredUnknownID = try field.integer("trainer_spec.unk_id")
            case 41: bosID = try field.integer("trainer_spec.bos_id")
            case 42: eosID = try field.integer("trainer_spec.eos_id")
            case 43: padID = try field.integer("trainer_spec.pad_id")
            case 44: unknownSurface = Array(bytes[try field.range("trainer_spec.unk_surface")])
            default: break
            }
        }
    }

    private mutating func readNormalizer(_ bytes: [UInt8], _ range: Range<Int>) throws {
        var reader = ProtobufReader(bytes, range, at: "normalizer_spec")
        while let field = try reader.next() {
            switch field.number {
            case 2: charsmap = Array(bytes[try field.range("normalizer_spec.precompiled_charsmap")])
            case 3: addsDummyPrefix = try field.bool("normalizer_spec.add_dummy_prefix")
            case 4: removesExtraWhitespace = try field.bool("normalizer_spec.remove_extra_whitespaces")
            case 5: escapesWhitespace = try field.bool("normalizer_spec.escape_whitespaces")
            default: break
            }
        }
    }

    private func checkDenormalizer(_ bytes: [UInt8], _ range: Range<Int>) throws {
        var reader = ProtobufReader(bytes, range, at: "denormalizer_spec")
        while let field = try reader.next() {
            guard try field.number != 2 || field.range("denormalizer_spec.precompiled_charsmap").isEmpty else {
                throw TokenizerError(
                    .unsupported, "denormalizer_spec.precompiled_charsmap: rewriting of decoded text is not supported")
            }
        }
    }

    private func check() throws {
        guard !pieces.isEmpty else { throw TokenizerError(.invalidModel, "pieces: the model has none") }
        switch kind {
        case .unigram, .bpe: break
        case .word, .character:
            throw TokenizerError(
                .unsupported, "trainer_spec.model_type is \(kind): only UNIGRAM and BPE models are supported")
        }
        if treatsWhitespaceAsSuffix {
            throw TokenizerError(.unsupported, "trainer_spec.treat_whitespace_as_suffix is not supported")
        }
        guard String(validating: unknownSurface, as: UTF8.self) != nil else {
            throw TokenizerError(.invalidModel, "trainer_spec.unk_surface is not UTF-8")
        }
        for (name, id) in [("bos", bosID), ("eos", eosID), ("pad", padID)] where id >= pieces.count {
            throw TokenizerError(.invalidModel, "trainer_spec.\(name)_id is \(id) of \(pieces.count) pieces")
        }
        let unknowns = pieces.filter { $0.type == .unknown }.count
        guard unknowns == 1 else {
            throw TokenizerError(.invalidModel, "pieces: \(unknowns) of type UNKNOWN, and one is needed")
        }
        var seen = ByteTable(capacity: pieces.count)
        for (id, piece) in pieces.enumerated() {
            if let other = seen.value(for: piece.spelling) {
                throw TokenizerError(.invalidModel, "pieces[\(id)]: the same spelling as pieces[\(other)]")
            }
            piece.spelling.withUnsafeBufferPointer { seen.set($0, to: Int32(id)) }
        }
        if hasByteFallback {
            let missing = (0..<256).first { seen.value(for: BPEModel.fallbackSpelling(UInt8($0))) == nil }
            if let missing {
                let spelling = String(decoding: BPEModel.fallbackSpelling(UInt8(missing)), as: UTF8.self)
                throw TokenizerError(
                    .invalidModel, "trainer_spec.byte_fallback is set and piece \(spelling) is missing")
            }
        }
    }

    /// The id of the piece of type UNKNOWN.
    public var unknownID: Int { pieces.firstIndex { $0.type == .unknown } ?? declaredUnknownID }
}

extension SentencePieceModel.Piece {
    fileprivate init(_ bytes: [UInt8], _ range: Range<Int>, index: Int) throws {
        self.init(spelling: [], score: 0, type: .normal)
        var reader = ProtobufReader(bytes, range, at: "pieces[\(index)]")
        while let field = try reader.next() {
            switch field.number {
            case 1: spelling = Array(bytes[try field.range("pieces[\(index)].piece")])
            case 2: score = try field.float("pieces[\(index)].score")
            case 3:
                let number = try field.integer("pieces[\(index)].type")
                guard let type = SentencePieceModel.PieceType(rawValue: number) else {
                    throw TokenizerError(.invalidModel, "pieces[\(index)].type is \(number): expected 1 to 6")
                }
                self.type = type
            default: break
            }
        }
        guard !spelling.isEmpty, String(validating: spelling, as: UTF8.self) != nil else {
            throw TokenizerError(.invalidModel, "pieces[\(index)].piece: expected UTF-8 text")
        }
        guard score.isFinite else {
            throw TokenizerError(.invalidModel, "pieces[\(index)].score is \(score)")
        }
    }
}
