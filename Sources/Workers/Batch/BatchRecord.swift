import Datasets
import RolloutCore
import RolloutEngine
import Telemetry

/// A line with its samples, as the output has it.
struct BatchRecord {
    let line: BatchLine
    let index: Int
    let promptTokens: Int
    let samples: [GeneratedSample]

    /// JSON and a line feed.
    func bytes(_ encoder: BatchEncoder) -> [UInt8] {
        var writer = JSONWriter()
        writer.object { object in
            if let id = line.id {
                object.key("id")
                object.value(json: id.text)
            }
            object.key("index")
            object.value(index)
            for member in line.carried {
                object.key(member.name)
                object.value(json: member.value.text)
            }
            object.key("seed")
            object.value(json: "\(line.sampling.seed)")
            object.key("prompt_tokens")
            object.value(promptTokens)
            object.key("samples")
            object.array { array in
                for sample in samples { array.object { write(sample, encoder, to: &$0) } }
            }
        }
        return writer.bytes + [UInt8(ascii: "\n")]
    }

    private func write(_ sample: GeneratedSample, _ encoder: BatchEncoder, to object: inout JSONWriter) {
        object.key("text")
        object.value(encoder.text(of: sample.tokens, sample.finishReason, line.sampling))
        object.key("token_ids")
        object.array { array in for id in sample.tokens { array.value(Int(id)) } }
        if encoder.input.settings.logProbs {
            object.key("logprobs")
            object.array { array in
                for value in sample.logProbs {
                    // The shortest text of a Float; a Double's would show digits that were never there.
                    if value.isFinite { array.value(json: "\(value)") } else { array.value(Double(value)) }
                }
            }
        }
        object.key("finish_reason")
        object.value(sample.finishReason.rawValue)
    }
}
