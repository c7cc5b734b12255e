//! Ids of attempts. A real process never uses one twice; a world that did so would never see the same state again. So an id is
//! used again as soon as nothing in the world refers to it any more, which nobody can tell from a new one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::control_record::Origin;
use tollgate_proto::{Content, codec};

use super::scene::{Job, Scene};
use super::world::World;

impl World {
    /// A number for a new attempt that nothing in the world refers to: as good as one that was never used.
    pub(super) fn new_serial(&self, scene: &mut Scene) -> u64 {
        if self.has_blobs() {
            // Clean-ups of earlier attempts may be under way where nobody can look: their names must stay theirs.
            let outside = Arc::make_mut(&mut scene.outside);
            outside.attempts += 1;
            return outside.attempts;
        }
        let mut used = BTreeSet::new();
        used.extend(scene.workers.iter().filter_map(|worker| worker.task()).map(|task| task.serial));
        let mut messages: Vec<&Bytes> =
            scene.broker.available.keys().chain(scene.broker.dead.keys()).collect();
        for worker in &scene.workers {
            for job in worker.task().into_iter().flat_map(|task| task.jobs.iter().flatten()) {
                if let Job::Message(message) = job {
                    messages.push(message);
                }
            }
        }
        for message in messages {
            let envelope = codec::decode_envelope(message).expect("only the world makes envelopes");
            if let Content::WakeUp { attempt, .. } = envelope.content {
                used.insert(attempt.serial);
            }
        }
        let stored = scene.partitions.iter().filter_map(|partition| partition.contents.record());
        let lagging = scene
            .partitions
            .iter()
            .filter_map(|partition| partition.replica.as_ref().and_then(|contents| contents.record()));
        let cached = scene
            .processes
            .iter()
            .flat_map(|process| &process.lanes)
            .filter_map(|lane| lane.view.as_ref().and_then(|view| view.control.clone()));
        let under_way = scene.outside.under_way.iter().map(|commit| {
            codec::decode_control(&commit.control).expect("only the machine writes control records")
        });
        for control in stored.chain(lagging).chain(cached).chain(under_way) {
            used.insert(control.attempt.serial);
            for entry in &control.pending {
                if let Origin::Attempt { attempt, .. } = &entry.origin {
                    used.insert(attempt.serial);
                }
            }
        }
        (1..=u64::MAX).find(|serial| !used.contains(serial)).expect("few serials are in use")
    }
}
