public import ChatTemplates
import Tokenizers

/// A rendered conversation as tokens, with those marked that the assistant wrote.
public struct MaskedChat: Hashable, Sendable {
    /// How the assistant's text was found.
    public enum Source: String, Hashable, Sendable {
        /// The template marks it with `{% generation %}`.
        case generationBlocks = "generation blocks"
        /// By rendering the conversation's beginnings and comparing.
        case prefixes
    }

    public var text: String
    public var ids: [Int32]
    /// 1 where the assistant wrote, else 0; as long as `ids`.
    public var mask: [UInt8]
    /// The assistant's text, as UTF-8 offsets into `text`.
    public var spans: [Range<Int>]
    public var source: Source
}

/// One turn of the assistant in a rendered conversation.
public struct AssistantTurn: Hashable, Sendable {
    /// Which message it is.
    public var message: Int
    public var place: Place

    public enum Place: Hashable, Sendable {
        /// Its text as UTF-8 offsets into the rendered conversation, and its tokens.
        case found(bytes: Range<Int>, tokens: Range<Int>)
        case refused(MaskRefusal)
    }
}

/// Why the tokens of a turn cannot be told safely.
public struct MaskRefusal: Hashable, Sendable, CustomStringConvertible {
    /// Open, so that callers keep a default case.
    public struct Reason: Hashable, Sendable, CustomStringConvertible {
        public let description: String
        public init(_ name: String) { description = name }

        /// Later messages change how earlier ones are rendered, as where earlier thinking is taken out.
        public static let rewritesHistory = Reason("the template rewrites earlier turns")
        /// The turn does not begin with what opens it for generation.
        public static let otherPrompt = Reason("the generation prompt is not how the turn begins")
        /// Tokens merge over the turn's border, or come out otherwise than the model would see them.
        public static let tokensMerge = Reason("tokens merge over the border")
        /// A beginning of the conversation cannot be rendered by itself.
        public static let cannotRender = Reason("a beginning of the conversation cannot be rendered")
        /// Generation blocks that lie in macros or `set` blocks have no place in the text.
        public static let unplacedBlocks = Reason("generation blocks have no place in the text")
    }

    public var reason: Reason
    public var detail: String

    public var description: String { detail.isEmpty ? reason.description : "\(reason): \(detail)" }
}

extension ChatFormat {
    /// A conversation as tokens with those marked that the assistant wrote: by the template's generation blocks, as
    /// `return_assistant_tokens_mask` of `transformers` does, or else by comparing the conversation's beginnings.
    ///
    /// A token counts as the assistant's if any of its characters is.
    /// - Parameters:
    ///   - first: turns of messages before this one are the prompt's, and stay unmarked whoever wrote them.
    ///   - addGenerationPrompt: whether to end with what opens the assistant's turn.
    /// - Throws: ``ConversationError`` with code `mask` and the reason when that cannot be done safely; `TemplateError`
    ///   and `TokenizerError`.
    public func masked(
        _ messages: [ChatMessage], from first: Int = 0, addGenerationPrompt: Bool = false
    ) throws -> MaskedChat {
        let rendered = try render(messages, addGenerationPrompt: addGenerationPrompt)
        if template.marksGeneration, rendered.unplacedGenerations == 0 {
            let encoding = try tokenizer.encoding(rendered.text)
            let start = first == 0 ? 0 : try promptLength(messages[..<first], rendered)
            let kept = rendered.generationSpans.indices.filter { index in
                let span = rendered.generationSpans[index]
                return !span.isEmpty && span.lowerBound >= start
            }
            return MaskedChat(
                text: rendered.text, ids: encoding.ids,
                mask: encoding.mask(kept.map { rendered.generationSpansInCodePoints[$0] }),
                spans: kept.map { rendered.generationSpans[$0] }, source: .generationBlocks)
        }
        let (encoding, turns) = try turns(of: rendered, messages, from: first)
        var mask = [UInt8](repeating: 0, count: encoding.count), spans: [Range<Int>] = []
        for turn in turns {
            switch turn.place {
            case .found(let bytes, let tokens):
                spans.append(bytes)
                for index in tokens { mask[index] = 1 }
            case .refused(var refusal):
                if template.marksGeneration {
                    refusal.detail = "\(rendered.unplacedGenerations) of them; and \(refusal)"
                    refusal.reason = .unplacedBlocks
                }
                throw ConversationError(
                    .mask,
                    "the tokens of message \(turn.message) cannot be told: \(refusal). "
                        + "Mark them in the template with {% generation %}")
            }
        }
        return MaskedChat(text: rendered.text, ids: encoding.ids, mask: mask, spans: spans, source: .prefixes)
    }

    /// Where each turn of the assistant stands in a rendered conversation, found without generation blocks.
    ///
    /// A turn is what rendering the messages up to it adds to rendering those before it with the generation prompt, if
    /// both are beginnings of the whole, byte for byte and token for token. What the template writes behind the
    /// end-of-turn token, a newline mostly, belongs to the turn as it does in generation blocks.
    /// - Throws: `TemplateError` when the whole cannot be rendered; `TokenizerError`.
    public func assistantTurns(_ messages: [ChatMessage], addGenerationPrompt: Bool = false) throws -> [AssistantTurn] {
        try turns(of: render(messages, addGenerationPrompt: addGenerationPrompt), messages).turns
    }

    /// The bytes of the rendered messages before a turn. What opens that turn counts as its own here: the template's blocks say
    /// where it is written by the assistant.
    private func promptLength(_ prompt: ArraySlice<ChatMessage>, _ whole: RenderedChat) throws -> Int {
        let bytes: [UInt8]
        do { bytes = try render(prompt, addGenerationPrompt: false).bytes } catch {
            throw ConversationError(.mask, "the prompt cannot be rendered by itself: \(error)")
        }
        guard whole.bytes.starts(with: bytes) else {
            throw ConversationError(
                .mask,
                "the prompt's end cannot be told: \(MaskRefusal.Reason.rewritesHistory): "
                    + Self.difference(bytes, whole.bytes))
        }
        return bytes.count
    }

    private func turns(
        of whole: RenderedChat, _ messages: [ChatMessage], from first: Int = 0
    ) throws -> (encoding: Encoding, turns: [AssistantTurn]) {
        let encoding = try tokenizer.encoding(whole.text)
        let bytes = whole.bytes
        let turns = try messages.indices.dropFirst(first).filter { messages[$0].role == "assistant" }.map { index in
            AssistantTurn(message: index, place: try place(of: index, in: messages, bytes, encoding))
        }
        return (encoding, turns)
    }

    private func place(
        of index: Int, in messages: [ChatMessage], _ whole: [UInt8], _ encoding: Encoding
    ) throws -> AssistantTurn.Place {
        let prompt: RenderedChat, turn: [UInt8]
        do {
            prompt = try render(messages[..<index], addGenerationPrompt: true)
            turn = try render(messages[...index], addGenerationPrompt: false).bytes
        } catch {
            return .refused(MaskRefusal(reason: .cannotRender, detail: "\(error)"))
        }
        func refused(_ reason: MaskRefusal.Reason, _ one: [UInt8], _ other: [UInt8]) -> AssistantTurn.Place {
            .refused(MaskRefusal(reason: reason, detail: Self.difference(one, other)))
        }
        let start = prompt.text.utf8.count, end = turn.count
        guard whole.starts(with: turn) else { return refused(.rewritesHistory, turn, whole) }
        guard turn.starts(with: prompt.text.utf8) else { return refused(.otherPrompt, prompt.bytes, turn) }
        // The prompt's tokens must be those that the model is given when it is to write this turn.
        let promptIDs = try encode(prompt.text)
        guard encoding.ids.starts(with: promptIDs) else {
            let place = zip(encoding.ids, promptIDs).prefix { $0 == $1 }.count
            let detail =
                place < promptIDs.count && place < encoding.count
                ? "token \(place) is \(promptIDs[place]) in the prompt and \(encoding.ids[place]) in the whole"
                : "the prompt has \(promptIDs.count) tokens, the whole \(encoding.count)"
            return .refused(MaskRefusal(reason: .tokensMerge, detail: detail))
        }
        let tokens = encoding.tokensTouching(start..<end, from: promptIDs.count)
        let outside = tokens.first { index in
            let bytes = encoding.byteOffsets[index]
            return !bytes.isEmpty && (bytes.lowerBound < start || bytes.upperBound > end)
        }
        if let outside {
            let text = String(decoding: whole[encoding.byteOffsets[outside]], as: UTF8.self)
            return .refused(
                MaskRefusal(reason: .tokensMerge, detail: "token \(outside), \(Self.quoted(text)), is of two turns"))
        }
        return .found(bytes: start..<end, tokens: tokens)
    }

    private static func difference(_ one: [UInt8], _ other: [UInt8]) -> String {
        let place = zip(one, other).prefix { $0 == $1 }.count
        func excerpt(_ bytes: [UInt8]) -> String {
            quoted(String(decoding: bytes[min(place, bytes.count)...].prefix(40), as: UTF8.self))
        }
        return "byte \(place): \(excerpt(one)) against \(excerpt(other))"
    }

    static func quoted(_ text: String) -> String {
        "'" + text.unicodeScalars.map { $0 == "\n" ? "\\n" : String($0) }.joined() + "'"
    }
}

extension Encoding {
    /// 1 for tokens with a character in one of the spans, which are in code points.
    fileprivate func mask(_ spans: [Range<Int>]) -> [UInt8] {
        characterOffsets.map { token in
            // A token of a few bytes of one character has that character's place, so none is empty but added ones.
            spans.contains { $0.overlaps(token) } ? 1 : 0
        }
    }

    /// The tokens from `first` on that have bytes in `span`.
    fileprivate func tokensTouching(_ span: Range<Int>, from first: Int) -> Range<Int> {
        var end = first
        while end < count, byteOffsets[end].lowerBound < span.upperBound { end += 1 }
        return first..<end
    }
}
