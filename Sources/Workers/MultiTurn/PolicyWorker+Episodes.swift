import Environments
import Flow
import RolloutCore
import RolloutEngine

extension PolicyWorker: EpisodeDrawing {
    func beginEpisodes(_ episodes: Int, tokens: Int) throws {
        turns = try withEngine { engine, _ in try TurnSession(engine, episodes: episodes, tokens: tokens) }
    }

    func draw(_ requests: [ContinuationRequest], _ settings: RolloutRequestSettings) throws -> [SampledContinuation] {
        guard let turns else { throw WorkerError(.badSetting, "a turn was drawn before its episodes began") }
        var settings = settings
        settings.n = 1
        let wanted = try withEngine { _, sampling in
            requests.map { request in
                settings.maxTokens = request.maxTokens
                return RolloutRequest(prompt: request.prefix, sampling: sampling(settings, request.seed))
            }
        }
        return try turns.draw(wanted).map { sample in
            SampledContinuation(
                tokens: sample.tokens, logProbs: sample.logProbs, isTruncated: sample.finishReason == .length,
                weightVersions: sample.weightVersions)
        }
    }

    func endEpisodes() throws -> EpisodeDraws {
        guard let turns else { throw WorkerError(.badSetting, "episodes ended before they began") }
        self.turns = nil
        let digest = try weightDigest(), counted = turns.statistics
        let share = try withEngine { engine, _ in
            var share = GenerationShare(
                responses: PackedRows([]), logProbs: PackedRows([]), isTruncated: [], weightVersions: [],
                weightDigest: digest, engineVersion: engine.weightVersion, promptTokens: counted.promptTokens,
                prefilledTokens: counted.prefilledTokens, generatedTokens: counted.generatedTokens,
                decodeSteps: counted.decodeSteps)
            if sleepsAfterRollout {
                let slept = try engine.sleep()
                share.sleep = .init(
                    milliseconds: slept.milliseconds, wakeMilliseconds: engine.lastWake.milliseconds,
                    bytes: slept.bytes)
            }
            return share
        }
        return EpisodeDraws(
            metrics: GenerationShare.metrics([share], seconds: turns.seconds), weightVersion: share.engineVersion,
            weightDigest: digest)
    }
}
