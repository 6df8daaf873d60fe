/// The lines of a JSON-lines file whose objects carry their `step`.
struct JSONLines {
    struct Line {
        let step: Int
        let value: JSONValue
        /// Where the line starts in the file, in bytes.
        let start: Int
    }

    let lines: [Line]
    /// Where a last line begins that was cut off by a kill or a power cut; nil when the file is whole.
    let tornAt: Int?

    /// - Throws: `TelemetryError` with code `malformed` for a bad line that is not the last, with its number.
    init(_ bytes: [UInt8], path: String) throws(TelemetryError) {
        var lines: [Line] = []
        var tornAt: Int?
        var start = 0
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n"))
            do throws(JSONParser.Failure) {
                guard let end else { throw JSONParser.Failure(offset: bytes.count - start, problem: "cut off") }
                let value = try JSONParser.parse(bytes[start..<end])
                guard let step = value["step"]?.int else {
                    throw JSONParser.Failure(offset: 0, problem: "no whole number under 'step'")
                }
                lines.append(Line(step: step, value: value, start: start))
            } catch {
                // After a power cut the tail may be there in length only; anything earlier is damage.
                if let end, end + 1 < bytes.count {
                    throw TelemetryError(
                        .malformed,
                        "line \(lines.count + 1), byte \(error.offset): \(error.problem); mend or remove that line",
                        path: path)
                }
                tornAt = start
                break
            }
            start = end.map { $0 + 1 } ?? bytes.count
        }
        self.lines = lines
        self.tornAt = tornAt
    }

    /// The whole lines of a file; none when the file is absent. A last line still being written is left out.
    static func read(_ path: String) throws(TelemetryError) -> [Line] {
        guard let bytes = try PosixFile.read(path) else { return [] }
        return try JSONLines(bytes, path: path).lines
    }
}
