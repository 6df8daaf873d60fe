/// Tiny tokenizers that name every component once.
enum TokenizerSeeds {
    static let all = [byteLevel, unigram, wordPiece, wordLevel, sentencePieceStyle]

    private static let addedTokens = #"""
        "added_tokens": [
        {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true}, {"id": 90, "content": "</s>", "single_word": false, "lstrip": true, "rstrip": true,
        "normalized": true, "special": true}, {"id": 91, "content": "world", "single_word": true, "lstrip": false,
        "rstrip": false, "normalized": true, "special": false}]
        """#

    private static let byteLevel = #"""
        {"version": "1.0", "truncation": {"max_length": 40, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 12}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<s>"}, \#(addedTokens),
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": false,
        "strip_right": true}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
        "(?i:'s|'t|'re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
        "behavior": "Isolated", "invert": false}, {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": true,
        "trim_offsets": true, "use_regex": true}, {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [0],
        "tokens": ["<s>"]}}}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
        "vocab": {"<s>": 0, "a": 1, "b": 2, "e": 3, "l": 4, "o": 5, "H": 6, "Ġ": 7, "Ċ": 8, "1": 9, "2": 10, "el": 11,
        "Hel": 12, "lo": 13, "Hello": 14, "ĠĠ": 15, "ab": 16, "abab": 17, "Ã": 18, "©": 19, "Ã©": 20},
        "merges": [["e", "l"], ["H", "el"], ["l", "o"], "Hel lo", ["Ġ", "Ġ"], ["a", "b"], ["ab", "ab"], "Ã ©"]}}
        """#

    private static let unigram = #"""
        {"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "CAAAAAACAAAAAAAAYQBiAA=="},
        {"type": "Nmt"}, {"type": "NFKC"}, {"type": "StripAccents"}, {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Replace", "pattern": {"String": "o"}, "content": "0o"}, {"type": "Prepend", "prepend": "▁"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace", "replacement": "▁",
        "prepend_scheme": "first", "split": true}, {"type": "UnicodeScripts"}, {"type": "FixedLength", "length": 7}]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {"</s>": {"id": "</s>", "ids": [1],
        "tokens": ["</s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁",
        "prepend_scheme": "always", "split": true}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1,
        "stop": 1}, {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "a"}]},
        "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": true, "vocab": [["<s>", 0.0], ["</s>", 0.0],
        ["<unk>", 0.0], ["▁", -2.5], ["▁h", -3.25], ["ello", -4.0], ["h", -5.0], ["e", -5.1], ["l", -5.2], ["0", -6],
        ["o", -5.3], ["ab", -3.0], ["<0xE4>", -9], ["<0xBD>", -9], ["<0xA0>", -9], ["é", -7.5e0], ["ひら", -8]]}}
        """#

    private static let wordPiece = #"""
        {"version": "1.0", "truncation": {"max_length": 16, "strategy": "OnlyFirst", "stride": 2, "direction": "Left"},
        "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_id": 3,
        "pad_type_id": 1, "pad_token": "[PAD]"}, \#(addedTokens),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 20, "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "hello": 4, "he": 5,
        "##llo": 6, "a": 7, "##b": 8, "##a": 9, "1": 10, "##2": 11, ",": 12, "!": 13, "it": 14, "世": 15}}}
        """#

    private static let wordLevel = #"""
        {"version": "1.0", "truncation": {"max_length": 30, "strategy": "LongestFirst", "stride": 0}, "padding": null,
        "added_tokens": [], "normalizer": {"type": "ByteLevel"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "WhitespaceSplit"},
        {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "CharDelimiterSplit", "delimiter": "l"},
        {"type": "Split", "pattern": {"String": "b"}, "behavior": "MergedWithNext", "invert": true},
        {"type": "Split", "pattern": {"Regex": "(?<=a)b|c??d{2,3}+(?:e|f)*?\\b"}, "behavior": "MergedWithPrevious",
        "invert": false}]},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true,
        "add_prefix_space": true}, "decoder": {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|",
        "cleanup": true}, "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<s>": 0, "<unk>": 1,
        "</s>": 2, "He": 3, "a": 4, "ab": 5}}}
        """#

    private static let sentencePieceStyle = #"""
        {"version": "1.0", "truncation": null, "padding": null, \#(addedTokens),
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace",
        "pattern": {"String": " "}, "content": "▁"}, {"type": "NFKD"}, {"type": "NFD"}]}, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
        "model": {"type": "BPE", "dropout": 0.0, "unk_token": "<unk>", "continuing_subword_prefix": "@@",
        "end_of_word_suffix": "</w>", "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": {"<s>": 0, "<unk>": 1, "▁": 2, "@@a": 3, "@@b": 4, "@@ab": 5, "<0x0A>": 6, "<0x41>": 7, "@@l": 8,
        "@@o": 9, "@@lo": 10, "@@b</w>": 11, "▁H": 12, "@@H": 13}, "merges": ["@@a @@b", "@@l @@o", "▁ @@H"]}}
        """#
}
