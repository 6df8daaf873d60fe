/// A `tokenizer.json` of single bytes with the two marks of a turn.
public enum ByteTokenizer {
    public static let vocabulary = 258
    public static let turnStart: Int32 = 256
    public static let turnEnd: Int32 = 257

    /// Byte-level BPE without a merge: one token a byte, spelt as GPT-2 spells bytes.
    public static var json: String {
        var next: UInt32 = 256
        let vocabulary = (UInt32(0)..<256).map { byte in
            let isPrintable = (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte)
            let scalar = isPrintable ? byte : next
            if !isPrintable { next += 1 }
            let text = byte == 34 || byte == 92 ? "\\" : ""
            return "\"\(text)\(Character(UnicodeScalar(scalar) ?? " "))\": \(byte)"
        }
        func special(_ id: Int, _ text: String) -> String {
            """
            {"id": \(id), "content": "\(text)", "single_word": false, "lstrip": false, "rstrip": false,
             "normalized": false, "special": true}
            """
        }
        return """
            {"version": "1.0", "added_tokens": [\(special(256, "<|im_start|>")), \(special(257, "<|im_end|>"))],
             "normalizer": null, "post_processor": null,
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
             "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
             "model": {"type": "BPE", "vocab": {\(vocabulary.joined(separator: ", "))}, "merges": []}}
            """
    }
}
