/// What may rest of the roles that share a device, from the least to the most.
struct RestingChoices {
    /// The first is taken where there is room, each next one where there is none under those before.
    let levels: [RestingRoles]

    init(_ work: PlanWork, isCUDA: Bool) {
        // Nobody needs the memory of a role that is alone, or that all others are part of.
        let roles = [work.generates, work.trainsPolicy, work.needsReference, work.trainsCritic].count { $0 }
        let can = RestingRoles(
            reference: work.needsReference && roles > 1, critic: work.trainsCritic && roles > 1,
            states: work.trainsPolicy && work.learns && roles > 1)
        var level = RestingRoles()
        if work.takesTurns == true { level = can }
        if let said = work.restsReference { level.reference = said && work.needsReference }
        var levels = [level]
        if isCUDA, work.takesTurns != false {
            if can.reference, work.restsReference == nil {
                level.reference = true
                levels.append(level)
            }
            if work.takesTurns == nil {
                if can.critic {
                    level.critic = true
                    levels.append(level)
                }
                if can.states {
                    level.states = true
                    levels.append(level)
                }
            }
        }
        self.levels = levels.reduce(into: []) { if $0.last != $1 { $0.append($1) } }
    }
}
