import ChatTemplates
import Conversations
import Foundation
import Telemetry

/// A file or an argument that cannot be used as it is.
struct InputError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// What commands read.
enum Input {
    /// A file's text; `-` is standard input.
    static func text(_ path: String) throws -> String {
        let data: Data
        if path == "-" {
            data = FileHandle.standardInput.readDataToEndOfFile()
        } else {
            do { data = try Data(contentsOf: URL(fileURLWithPath: path)) } catch {
                throw InputError("\(path): cannot be read: \(error.localizedDescription)")
            }
        }
        guard let text = String(validating: data, as: UTF8.self) else {
            throw InputError("\(path == "-" ? "standard input" : path): is not UTF-8")
        }
        return text
    }

    static func json(_ path: String) throws -> TemplateValue {
        do { return try TemplateValue(json: text(path)) } catch let error as TemplateError {
            throw InputError("\(path == "-" ? "standard input" : path): \(error.message)")
        }
    }
}

/// Text in colours, where the reader shows them.
struct Paint {
    let usesColor: Bool
    init(descriptor: Int32) { usesColor = TerminalTraits.detect(descriptor: descriptor).usesColor }

    func bold(_ text: String) -> String { paint("1", text) }
    func faint(_ text: String) -> String { paint("2", text) }
    func green(_ text: String) -> String { paint("32", text) }
    func cyan(_ text: String) -> String { paint("36", text) }

    private func paint(_ code: String, _ text: String) -> String {
        usesColor && !text.isEmpty ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }

    /// Text that cannot steer the terminal: control characters but line breaks and tabs are shown as signs.
    static func harmless(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            let isHarmful = scalar.properties.generalCategory == .control && scalar != "\n" && scalar != "\t"
            if isHarmful {
                result += TokenListing.visible(String(scalar))
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

extension JSONWriter {
    mutating func value(_ value: TemplateValue) {
        switch value {
        case .null: null()
        case .bool(let flag): self.value(flag)
        case .int(let number): self.value(Int(number))
        case .double(let number): self.value(number)
        case .string(let text): self.value(text)
        case .array(let values): array { list in for value in values { list.value(value) } }
        case .object(let object):
            self.object { members in
                for (key, value) in object.pairs {
                    members.key(key)
                    members.value(value)
                }
            }
        }
    }

    mutating func values(_ numbers: some Sequence<some BinaryInteger>) {
        array { list in for number in numbers { list.value(Int(number)) } }
    }

    mutating func values(_ range: Range<Int>?) {
        if let range { values([range.lowerBound, range.upperBound]) } else { null() }
    }

    mutating func member(_ name: String, _ body: (inout JSONWriter) -> Void) {
        key(name)
        body(&self)
    }
}
