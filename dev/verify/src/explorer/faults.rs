//! Kinds of faults, one by one: what is added to a world so that something goes wrong once. Pairs of them are
//! explored in a small version of every world, so that no two kinds wait for somebody to think of them
//! together.

use super::world::{Budget, Consistency, Input, Sweep, World};

/// One kind of fault.
struct Fault {
    name: &'static str,
    /// Whether it can happen in a world.
    applies: fn(&World) -> bool,
    /// Lets it happen once more.
    add: fn(&mut World),
}

const FAULTS: [Fault; 13] = [
    Fault { name: "copy", applies: |_| true, add: |world| world.copies += 1 },
    Fault { name: "crash", applies: |_| true, add: |world| world.budget.crashes += 1 },
    Fault { name: "time-out", applies: |_| true, add: |world| world.budget.time_outs += 1 },
    Fault { name: "lost answer", applies: |_| true, add: |world| world.budget.lost_answers += 1 },
    Fault { name: "failed call", applies: |_| true, add: |world| world.budget.failed_calls += 1 },
    Fault { name: "failed handler", applies: |_| true, add: |world| world.budget.handler_failures += 1 },
    Fault { name: "eviction", applies: |_| true, add: |world| world.budget.evictions += 1 },
    Fault {
        name: "sweep",
        applies: |world| world.sweep == Sweep::Runs,
        add: |world| world.budget.sweeps += 1,
    },
    Fault { name: "late effect", applies: World::has_blobs, add: |world| world.budget.late_effects += 1 },
    Fault { name: "dropped preparation", applies: World::has_blobs, add: |world| world.budget.drops += 1 },
    Fault {
        name: "stale read",
        applies: |world| world.consistency == Consistency::Session,
        add: |world| world.budget.stale_reads += 1,
    },
    Fault { name: "departure", applies: World::has_requests, add: |world| world.budget.departures += 1 },
    Fault { name: "impatient wake-up", applies: World::has_requests, add: |world| world.budget.fences += 1 },
];

impl World {
    fn has_requests(&self) -> bool {
        self.inputs.iter().any(|input| matches!(input, Input::Request(_)))
    }

    /// A small version of a world for every pair of kinds of faults that can happen in it, twice the same one
    /// included: one copy of each message, one worker in each process, and nothing else that goes wrong.
    /// `None` if there is no such world.
    pub fn pairs(name: &str) -> Option<Vec<(String, Self)>> {
        let world = Self::named(name)?;
        let calm = Budget { conflicts: world.budget.conflicts, ..Budget::default() };
        let small = Self { copies: 1, budget: calm, workers: vec![1; world.workers.len()], ..world };
        let faults: Vec<&Fault> = FAULTS.iter().filter(|fault| (fault.applies)(&small)).collect();
        let mut pairs = Vec::new();
        for (place, first) in faults.iter().enumerate() {
            for second in &faults[place..] {
                let mut world = small.clone();
                (first.add)(&mut world);
                (second.add)(&mut world);
                pairs.push((format!("{} + {}", first.name, second.name), world));
            }
        }
        Some(pairs)
    }
}
