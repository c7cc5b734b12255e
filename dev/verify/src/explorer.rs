//! The explorer: walks every interleaving of a small world and checks the guarantees of the design in
//! every state. What it walks is the state machine that is shipped, driven as the engine drives it; nothing
//! of `tollgate-proto` is modelled again.
//!
//! [`search`] is the walk, for any model; [`World`] says what there is and what may go wrong; [`Mutant`]
//! breaks one rule, so that it can be seen that the explorer would notice.
//!
//! ```
//! use tollgate_verify::explorer::{Bounds, Explorer, Outcome, World, search};
//!
//! let mut world = World::named("receiver").expect("it is one of World::NAMES");
//! world.copies = 1;
//! let findings = search(&Explorer::new(world), Bounds::default(), |_| ());
//! assert_eq!(findings.outcome, Outcome::Exhausted);
//! ```

mod attempts;
mod driver;
mod effects;
mod faults;
mod handling;
mod moves;
mod mutant;
mod narrative;
mod properties;
mod scene;
pub mod search;
mod specimens;
mod stage;
mod turn;
mod world;
mod worlds;

pub use moves::Move;
pub use mutant::{DriverMutation, Mutant};
pub use scene::State;
pub use search::{Bounds, Findings, Kind, Liveness, Model, Outcome, Story, Transition, replay, search};
pub use specimens::Specimen;
pub use turn::Turn;
pub use world::{
    Blob, Budget, Consistency, ConsumedTokens, Input, Poison, Publications, Script, Sweep, TICK_MS, World,
};

use scene::{Pieces, Scene, Shape};

/// A world brought to life: a [`Model`] that can be searched.
pub struct Explorer {
    world: World,
    shape: Shape,
    pieces: Pieces,
}

impl Explorer {
    /// Brings a world to life.
    ///
    /// # Panics
    /// If the world has more pieces than a state has room for, or a script that names a message without one.
    pub fn new(world: World) -> Self {
        let shape = Shape::new(world.partitions.len() + 1, &world.workers);
        Self { world, shape, pieces: Pieces::default() }
    }

    /// What is explored.
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// How many distinct pieces (partitions, brokers, processes, workers) the states met so far are made of.
    pub fn piece_count(&self) -> usize {
        self.pieces.count()
    }

    fn scene(&self, state: State) -> Scene {
        self.pieces.unpack(&self.shape, state)
    }
}

impl Model for Explorer {
    type State = State;
    type Step = Move;

    fn initial(&self) -> State {
        self.pieces.pack(&self.world.initial())
    }

    fn successors(&self, state: &State, found: &mut Vec<Transition<Move, State>>) {
        let _switch = self.world.mutant.and_then(Mutant::switch_on);
        let before = self.scene(*state);
        for (step, kind) in self.world.moves(&self.shape, &before) {
            let (next, violation) = match self.world.make(&self.shape, &before, &step) {
                Ok(after) => (self.pieces.repack(&after, &before, *state), None),
                Err(violation) => (*state, Some(violation)),
            };
            found.push(Transition { step, kind, next, violation });
        }
    }

    fn violation(&self, state: &State) -> Option<String> {
        self.world.broken(&self.scene(*state))
    }

    fn violation_when_quiet(&self, state: &State) -> Option<String> {
        self.world.broken_when_quiet(&self.scene(*state))
    }

    fn canonical(&self, state: State) -> State {
        state.sorted(&self.shape)
    }

    fn describe(&self, before: &State, step: &Move, after: &State) -> String {
        narrative::tell(&self.world, &self.shape, &self.scene(*before), step, &self.scene(*after))
    }
}
