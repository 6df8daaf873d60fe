/// `reward.model`: a model that scores answers.
public struct ScoringModelSettings: Hashable, Sendable {
    public let path: String
    public let chatTemplate: String?
    public let maxTokenLength: Int

    static func read(_ section: inout SectionReader) -> ScoringModelSettings? {
        let path = section.optionalString(
            "path",
            doc:
                "A folder that fledge reward-model export wrote, or a Hugging Face …ForSequenceClassification with one label: it "
                + "scores the conversation with the answer, on the device that trains, or on the pool of roles.reward_model."
        )
        let chatTemplate = section.optionalString(
            "chat_template", doc: "A Jinja file in place of that checkpoint's own template.")
        let maxTokenLength = section.int(
            "max_token_len_per_gpu", default: 16_384, in: 1...16_777_216,
            doc: "The most tokens that it scores at a time; a longer conversation alone.")
        return path.map {
            ScoringModelSettings(path: $0, chatTemplate: chatTemplate, maxTokenLength: maxTokenLength)
        }
    }
}

/// `reward.judge`: a language model behind an OpenAI-compatible server that grades answers.
public struct JudgeSettings: Hashable, Sendable {
    public static let defaultPrompt = """
        Grade the answer to a question from 0 (wrong or useless) to 10 (right and well put).

        Question:
        {prompt}

        Right answer:
        {ground_truth}

        Answer to grade:
        {response}

        Say why in a sentence. Then write the grade on a line of its own, as in "Score: 7".
        """
    public static let defaultPattern = #"[Ss]core: *(-?[0-9]+(?:\.[0-9]+)?)"#

    public let url: String
    public let model: String
    public let prompt: String
    public let system: String?
    public let scorePattern: String
    public let minScore: Double
    public let maxScore: Double
    public let temperature: Double
    public let maxTokens: Int
    public let concurrency: Int
    public let timeoutSeconds: Double
    public let retries: Int
    public let deadlineSeconds: Double
    public let apiKeyVariable: String?
    public let caFile: String?

    static func read(_ section: inout SectionReader) -> JudgeSettings? {
        let url = section.optionalString(
            "url", doc: "The server's address up to /v1, as https://host:8000/v1; /chat/completions is added.")
        let model = section.string("model", default: "judge", doc: "The model's name on that server.")
        let prompt = section.string(
            "prompt", default: defaultPrompt,
            doc: "What it is asked; {prompt}, {response} and {ground_truth} stand for those of a sample.")
        let system = section.optionalString("system_prompt", doc: "A system turn before that.")
        let pattern = section.string(
            "score_pattern", default: defaultPattern,
            doc: "Finds the grade in what it says: the last match's only group is the number.")
        let least = section.number(
            "min_score", default: 0, in: .any, doc: "The least grade. A grade outside is a failure, not a score.")
        let greatest = section.number(
            "max_score", default: 10, in: .any, doc: "The greatest. Scores are grades scaled to 0 … 1 between the two.")
        let temperature = section.number(
            "temperature", default: 0, in: .nonNegative, doc: "The judge's sampling temperature.")
        let maxTokens = section.int(
            "max_tokens", default: 512, in: 1...1_048_576, doc: "The most tokens that it may say.")
        let concurrency = section.int(
            "concurrency", default: 32, in: 1...4096, doc: "Requests under way at the same time.")
        let timeout = section.number("timeout_s", default: 60, in: .positive, doc: "Seconds that one request may take.")
        let retries = section.int(
            "retries", default: 5, in: 0...100,
            doc: "How often a request is made again after 429, a 5xx, no connection or no answer in time.")
        let deadline = section.number(
            "deadline_s", default: 300, in: .positive,
            doc: "Seconds that one sample may take, its waiting and its retries included.")
        let variable = section.optionalString(
            "api_key_env", doc: "The environment variable that holds the key; the key itself never stands in a recipe.")
        let caFile = section.optionalString(
            "ca_file", doc: "A PEM file of certificates to trust in place of the system's, for https.")
        return url.map {
            JudgeSettings(
                url: $0, model: model, prompt: prompt, system: system, scorePattern: pattern, minScore: least,
                maxScore: greatest, temperature: temperature, maxTokens: maxTokens, concurrency: concurrency,
                timeoutSeconds: timeout, retries: retries, deadlineSeconds: deadline, apiKeyVariable: variable,
                caFile: caFile)
        }
    }
}
