import ArgumentParser
import Conversations
import Telemetry
import Tokenizers
import Workers

struct Tokenize: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the tokens of a text, or the text of tokens.",
        discussion: """
            EXAMPLES
              fledge tokenize models/smollm2-135m-instruct "Hello, world"
              fledge tokenize DIR - --json < text.txt
              fledge tokenize DIR --decode 1,4093,198
            """)

    @Argument(help: "A Hugging Face folder (the tokenizer's files will do) or a .gguf file.", completion: .directory)
    var model: String

    @Argument(help: "The text; - or nothing reads standard input.")
    var text: String?

    @Option(help: "Token ids, with commas or blanks between.")
    var decode: String?

    @Flag(
        inversion: .prefixedNo,
        help: "Whether special tokens are added to a text as the tokenizer says, or kept in what ids decode to.")
    var special = true

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if decode != nil, text != nil { throw ValidationError("give a text or --decode, not both") }
    }

    func run() throws {
        try Failures.reported {
            let tokenizer = try TextProcessor(at: model).tokenizer
            let listing: TokenListing
            if let decode {
                listing = TokenListing(decoding: try Self.ids(decode), by: tokenizer, skipSpecialTokens: !special)
                guard listing.unknownIDs.isEmpty else {
                    throw InputError(
                        "--decode: ids \(listing.unknownIDs) are not in the vocabulary of \(tokenizer.vocabularyCount)")
                }
            } else {
                let given = text ?? "-"
                listing = try TokenListing(
                    encoding: given == "-" ? Input.text("-") : given, by: tokenizer, addSpecialTokens: special)
            }
            if json { return printJSON(listing) }
            if decode != nil {
                let isTerminal = TerminalTraits.detect(descriptor: 1).isInteractive
                return Console.say(isTerminal ? Paint.harmless(listing.text) : listing.text)
            }
            printTable(listing)
        }
    }

    static func ids(_ text: String) throws -> [Int32] {
        try text.split { ", \t\n[]".contains($0) }.map { word in
            guard let id = Int32(word), id >= 0 else { throw InputError("--decode: '\(word)' is not a token id") }
            return id
        }
    }

    private func printTable(_ listing: TokenListing) {
        let paint = Paint(descriptor: 1)
        let places = listing.rows.map { row in row.bytes.map { "\($0.lowerBound)–\($0.upperBound)" } ?? "" }
        let widths = [
            String(listing.rows.count).count, listing.rows.map { String($0.id).count }.max() ?? 0,
            places.map(\.count).max() ?? 0,
        ]
        for (index, (row, place)) in zip(listing.rows, places).enumerated() {
            let shown = TokenListing.visible(row.text)
            var line = paint.faint(Self.right(String(index), widths[0])) + "  " + Self.right(String(row.id), widths[1])
            line +=
                "  " + paint.faint(Self.right(place, widths[2])) + "  " + (row.isSpecial ? paint.cyan(shown) : shown)
            // Part of a character shows nothing: its spelling does.
            if row.text.unicodeScalars.contains("\u{FFFD}"), let piece = row.piece { line += paint.faint("  \(piece)") }
            Console.say(line)
        }
        let bytes = listing.text.utf8.count, scalars = listing.text.unicodeScalars.count
        let ratio = (Double(bytes) / Double(max(1, listing.rows.count)) * 100).rounded() / 100
        Console.note("\(listing.rows.count) tokens, \(bytes) bytes, \(scalars) characters, \(ratio) bytes a token")
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private func printJSON(_ listing: TokenListing) {
        var writer = JSONWriter(style: .pretty)
        writer.object { object in
            object.member("text") { $0.value(listing.text) }
            object.member("count") { $0.value(listing.rows.count) }
            object.member("ids") { $0.values(listing.ids) }
            object.member("tokens") { list in
                list.array { list in
                    for row in listing.rows {
                        list.object { object in
                            object.member("id") { $0.value(Int(row.id)) }
                            object.member("piece") { $0.value(row.piece) }
                            object.member("text") { $0.value(row.text) }
                            object.member("special") { $0.value(row.isSpecial) }
                            object.member("bytes") { $0.values(row.bytes) }
                            object.member("characters") { $0.values(row.characters) }
                        }
                    }
                }
            }
        }
        Console.say(writer.text)
    }
}
