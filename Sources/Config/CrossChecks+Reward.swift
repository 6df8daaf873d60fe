extension CrossChecks {
    /// Models that score: settings without one, and a judge that cannot be asked.
    func checkJudge() {
        for (section, source) in [("reward.model.", "reward.model.path"), ("reward.judge.", "reward.judge.url")] {
            let isSet = rewardSources.contains { $0.name == source && $0.isSet }
            for declaration in ledger.declarations where declaration.keyPath.utf8.starts(with: section.utf8) {
                refuse(
                    !isSet && declaration.keyPath != source && ledger.isChanged(declaration.keyPath),
                    declaration.keyPath, source, "there is none to ask",
                    remedy: "set \(source), or remove \(declaration.keyPath)")
            }
        }
        guard let judge = config.reward.judge else { return }
        let isSecure = judge.url.utf8.starts(with: "https://".utf8)
        if !isSecure, !judge.url.utf8.starts(with: "http://".utf8) {
            problem("reward.judge.url", "it is no address", remedy: "write it as https://host:8000/v1")
        }
        refuse(
            judge.caFile != nil && !isSecure, "reward.judge.ca_file", "reward.judge.url",
            "without https nobody shows a certificate", remedy: "make reward.judge.url https, or remove ca_file")
        if !judge.prompt.contains("{response}") {
            problem("reward.judge.prompt", "the judge would not see the answer", remedy: "write {response} in it")
        }
        refuse(
            judge.minScore >= judge.maxScore, "reward.judge.min_score", "reward.judge.max_score", "no grade is left",
            remedy: "make reward.judge.max_score the greater")
        refuse(
            judge.deadlineSeconds < judge.timeoutSeconds, "reward.judge.deadline_s", "reward.judge.timeout_s",
            "a sample would have less time than one request", remedy: "make reward.judge.deadline_s the greater")
    }
}
