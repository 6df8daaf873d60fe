import Config
import Foundation
import Telemetry
import Workers

/// What a run left as its configuration, whichever command wrote it.
enum RecordedRun {
    case policy(RunConfig)
    case supervised(SupervisedConfig)

    /// - Throws: `ConfigError`.
    init(_ folder: RunFolder) throws {
        let file = URL(fileURLWithPath: folder.config)
        if let kind = try SupervisedConfig.kind(ofResolved: file) {
            self = .supervised(try SupervisedConfig(kind, contentsOf: file))
        } else {
            self = .policy(try RunConfig(contentsOf: file, names: TrainingRun.knownNames))
        }
    }

    var model: ModelSettings {
        switch self {
        case .policy(let config): config.model
        case .supervised(let config): config.model
        }
    }
}
