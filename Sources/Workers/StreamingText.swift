import Tokenizers

/// One answer's tokens as text, piece by piece, never a broken character.
struct StreamingText {
    private var detokenizer: StreamingDetokenizer
    init(_ text: TextProcessor) { detokenizer = StreamingDetokenizer(text.tokenizer, skipSpecialTokens: true) }
    mutating func push(_ id: Int32) -> String { detokenizer.push(id) }
    mutating func flush() -> String { detokenizer.flush() }
}

extension TextProcessor {
    /// A function for the rollout engine's stop texts; each one keeps one row's state.
    var makeDetokenizer: () -> (Int32) -> String {
        { [self] in
            var streaming = StreamingText(self)
            return { streaming.push($0) }
        }
    }
}
