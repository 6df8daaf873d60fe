extension CrossChecks {
    /// Episodes, and the world that they are played in.
    func checkMultiTurn() {
        let settings = config.rollout.multiTurn, enable = "rollout.multi_turn.enable"
        guard settings.enable else {
            for declaration in ledger.declarations where isOfEpisodes(declaration.keyPath) {
                refuse(
                    ledger.isChanged(declaration.keyPath), declaration.keyPath, enable, "no episode is played",
                    remedy: "make \(enable) true, or remove \(declaration.keyPath)")
            }
            return
        }
        let longest = config.data.maxResponseLength
        refuse(
            (settings.maxTurnLength ?? 0) > longest, "rollout.multi_turn.max_turn_length", "data.max_response_length",
            "a reply would be longer than all replies together may be",
            remedy: "make it at most \(longest), or remove it")
        refuse(
            config.data.truncation != .error, "data.truncation", enable,
            "a conversation that is cut has no turns to go on from",
            remedy: "remove data.truncation; data.filter_overlong_prompts leaves long prompts out")
        refuse(
            config.rollout.ignoreEOS, "rollout.ignore_eos", enable, "a reply that never ends is never answered",
            remedy: "remove rollout.ignore_eos")
        checkEnvironment()
    }

    private func isOfEpisodes(_ keyPath: String) -> Bool {
        keyPath.utf8.starts(with: "environment.".utf8)
            || keyPath.utf8.starts(with: "rollout.multi_turn.".utf8) && keyPath != "rollout.multi_turn.enable"
    }

    private func checkEnvironment() {
        let world = config.environment, tools = "environment.tools", path = "environment.path"
        refuse(
            world.path != nil && !world.tools.isEmpty, path, tools, "two worlds for one episode", remedy: "keep one")
        if world.path == nil, world.tools.isEmpty, !ledger.refused.contains(path), !ledger.refused.contains(tools) {
            ledger.refuse(
                .missing, at: section("environment"), "environment", "there is no world to play in",
                remedy: "set environment.tools, as [calculator], or environment.path to a Python file")
        }
        for name in ["name", "interpreter", "timeout_s", "cpu_s", "memory_limit_mb"].map({ "environment." + $0 }) {
            refuse(
                world.path == nil && ledger.isChanged(name), name, path, "there is no such file",
                remedy: "set environment.path, or remove \(name)")
        }
        let cut = "rollout.multi_turn.max_tool_response_length"
        refuse(
            world.path != nil && ledger.isChanged(cut), cut, path, "a file's own class says how much it shows",
            remedy: "remove \(cut)")
        for name in ["first_success", "malformed_reply", "answer_without_tool"].map({ "environment.shaping." + $0 }) {
            refuse(
                world.path != nil && ledger.isChanged(name), name, path, "a file's own class gives its rewards",
                remedy: "remove \(name)")
        }
        for declaration in ledger.declarations where declaration.keyPath.utf8.starts(with: "environment.python.".utf8) {
            refuse(
                !world.tools.contains(.python) && ledger.isChanged(declaration.keyPath), declaration.keyPath, tools,
                "no code is run", remedy: "name python in environment.tools, or remove \(declaration.keyPath)")
        }
        refuse(
            Set(world.tools).count != world.tools.count, tools, "rollout.multi_turn.enable", "a tool is named twice",
            remedy: "name each once")
        if world.score == .environment {
            for source in rewardSources where source.isSet {
                refuse(
                    true, source.name, "environment.score", "only the environment's rewards count",
                    remedy: "remove \(source.name), or make environment.score sum or answer")
            }
            refuse(
                world.path == nil
                    && ledger.declarations.allSatisfy {
                        !$0.keyPath.utf8.starts(with: "environment.shaping.".utf8) || !ledger.isChanged($0.keyPath)
                    }, "environment.score", tools, "tools alone give no reward",
                remedy: "make environment.score sum and set reward.type, or set environment.shaping")
        }
    }
}
