extension CrossChecks {
    /// How sampling is computed: budgets that hold each other, and settings of what is off.
    func checkEngine() {
        let engine = config.rollout.engine
        refuse(
            engine.maxNumSeqs > engine.maxNumBatchedTokens, "rollout.max_num_batched_tokens", "rollout.max_num_seqs",
            "a step has a token for each response that decodes",
            remedy: "make rollout.max_num_batched_tokens at least \(engine.maxNumSeqs)")
        refuse(
            !engine.enableChunkedPrefill && config.data.maxPromptLength > engine.maxNumBatchedTokens,
            "rollout.max_num_batched_tokens", "data.max_prompt_length", "a prompt that is not cut would fit no step",
            remedy: "make it at least \(config.data.maxPromptLength), or rollout.enable_chunked_prefill true")
        if engine.blockSize.nonzeroBitCount != 1 {
            // The least power of two above it.
            let next = 1 << (Int.bitWidth - engine.blockSize.leadingZeroBitCount)
            problem(
                "rollout.block_size", "kernels find a token's block by shifting bits",
                remedy: "give a power of two, as \(next)")
        }
        refuse(
            engine.preemption == .swap && engine.swapSpace == 0, "rollout.preemption", "rollout.swap_space",
            "there is no memory to swap to", remedy: "make rollout.swap_space more than 0, or preemption recompute")
        refuse(
            engine.preemption != .swap && ledger.isChanged("rollout.swap_space"), "rollout.swap_space",
            "rollout.preemption", "nothing is swapped", remedy: "remove rollout.swap_space, or make preemption swap")
    }

    func checkSpeculation() {
        let speculative = config.rollout.speculative
        let prefix = "rollout.speculative."
        for name in ["num_speculative_tokens", "prompt_lookup_max", "prompt_lookup_min"].map({ prefix + $0 }) {
            refuse(
                speculative.method == .none && ledger.isChanged(name), name, prefix + "method", "nothing is guessed",
                remedy: "make \(prefix)method ngram, or remove \(name)")
        }
        refuse(
            speculative.method == .ngram && speculative.promptLookupMin > speculative.promptLookupMax,
            prefix + "prompt_lookup_min", prefix + "prompt_lookup_max", "no length is left to look up",
            remedy: "make prompt_lookup_max the greater, or both equal")
    }

    /// What changes the distribution that responses are drawn from.
    func checkPenalties() {
        let rollout = config.rollout
        refuse(
            rollout.minTokens > config.data.maxResponseLength, "rollout.min_tokens", "data.max_response_length",
            "a response would have to be longer than it may",
            remedy: "make rollout.min_tokens at most \(config.data.maxResponseLength)")
        warn(
            rollout.ignoreEOS && rollout.minTokens > 0, "rollout.ignore_eos", "rollout.min_tokens",
            "a response goes on to its full length whatever this says", remedy: "remove one")
        let penalties: [(name: String, isOn: Bool)] = [
            ("rollout.repetition_penalty", rollout.repetitionPenalty != 1),
            ("rollout.presence_penalty", rollout.presencePenalty != 0),
            ("rollout.frequency_penalty", rollout.frequencyPenalty != 0),
        ]
        for penalty in penalties {
            warn(
                penalty.isOn, penalty.name, "rollout.calculate_log_probs",
                "responses are drawn from another distribution than the one that is trained",
                remedy: "remove \(penalty.name), or expect large training/rollout_logprobs_diff")
        }
    }
}
