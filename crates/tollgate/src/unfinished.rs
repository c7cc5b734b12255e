//! Pending entries of one partition that this process is completing, or has failed to complete, and when the
//! next try is due. A dead target must not cost each visit of its partition a time-out. Nothing here does
//! I/O, and to lose it costs only repeated work.

use tollgate_proto::completion::CompletionReport;
use tollgate_proto::control_record::PendingId;
use tollgate_proto::processing::Deferred;

use crate::lanes::{LaneKey, Lanes};

/// A visit that was asked for and has not come is asked for again after this time, in milliseconds.
const ASK_AGAIN_MS: u64 = 60_000;

/// What one process knows of the unfinished entries of a partition.
#[derive(Default)]
pub(crate) struct Unfinished(Vec<Entry>);

struct Entry {
    id: PendingId,
    /// How often this process has failed to complete it.
    failures: u32,
    state: State,
}

enum State {
    UnderWay,
    Resting {
        /// When it is tried again.
        due_ms: u64,
        /// When a visit is asked for.
        ask_ms: u64,
    },
}

impl Unfinished {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries that a processing leaves alone at `now_ms`.
    pub(crate) fn deferred(&self, now_ms: u64) -> Deferred {
        let mut deferred = Deferred::default();
        for entry in &self.0 {
            match entry.state {
                State::UnderWay => deferred.under_way.push(entry.id),
                State::Resting { due_ms, .. } if due_ms > now_ms => deferred.not_due.push(entry.id),
                State::Resting { .. } => {}
            }
        }
        deferred
    }

    /// How many completions are under way that have not failed before.
    pub(crate) fn first_tries(&self) -> usize {
        self.0.iter().filter(|entry| entry.failures == 0 && matches!(entry.state, State::UnderWay)).count()
    }

    pub(crate) fn begin(&mut self, id: PendingId) {
        match self.0.iter_mut().find(|entry| entry.id == id) {
            Some(entry) => entry.state = State::UnderWay,
            None => self.0.push(Entry { id, failures: 0, state: State::UnderWay }),
        }
    }

    pub(crate) fn finished(&mut self, id: PendingId) {
        self.0.retain(|entry| entry.id != id);
    }

    /// A completion has failed; `due_ms` tells when the next try is due after so many failures. Returns how
    /// many there are.
    pub(crate) fn failed(&mut self, id: PendingId, due_ms: impl Fn(u32) -> u64) -> u32 {
        self.begin(id);
        let entry = self.0.iter_mut().find(|entry| entry.id == id);
        let entry = entry.expect("it was just begun");
        entry.failures += 1;
        let due_ms = due_ms(entry.failures);
        entry.state = State::Resting { due_ms, ask_ms: due_ms };
        entry.failures
    }

    /// When a visit is to be asked for, if at all.
    pub(crate) fn ask_ms(&self) -> Option<u64> {
        let times = self.0.iter().filter_map(|entry| match entry.state {
            State::UnderWay => None,
            State::Resting { ask_ms, .. } => Some(ask_ms),
        });
        times.min()
    }

    /// A visit has been asked for.
    pub(crate) fn asked(&mut self, now_ms: u64) {
        for entry in &mut self.0 {
            if let State::Resting { ask_ms, .. } = &mut entry.state
                && *ask_ms <= now_ms
            {
                *ask_ms = now_ms.saturating_add(ASK_AGAIN_MS);
            }
        }
    }
}

/// Completions of one partition that are under way. If they end without a report, they count as failed, and
/// are due.
pub(crate) struct UnderWay {
    lanes: Lanes,
    key: LaneKey,
    ids: Vec<PendingId>,
}

impl UnderWay {
    pub(crate) fn begin(lanes: &Lanes, key: &LaneKey, ids: Vec<PendingId>) -> Self {
        lanes.with_unfinished(key, |unfinished| ids.iter().for_each(|id| unfinished.begin(*id)));
        Self { lanes: lanes.clone(), key: key.clone(), ids }
    }

    /// Takes down what became of them. What failed is due again at a time that depends on how often it has
    /// failed.
    pub(crate) fn end(mut self, report: &CompletionReport, due_ms: impl Fn(u32) -> u64) {
        self.ids.clear();
        self.lanes.with_unfinished(&self.key, |unfinished| {
            for outcome in &report.outcomes {
                let Err(reason) = &outcome.result else {
                    unfinished.finished(outcome.pending.id);
                    continue;
                };
                let message_id = outcome.pending.origin.message_id();
                let partition = &self.key.partition;
                match unfinished.failed(outcome.pending.id, &due_ms) {
                    1 => tracing::warn!(%message_id, %partition, %reason, "committed and not finished; retrying"),
                    failures => {
                        tracing::debug!(%message_id, %partition, %reason, failures, "still not finished; retrying");
                    }
                }
            }
        });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            self.lanes.with_unfinished(&self.key, |unfinished| {
                for id in &self.ids {
                    unfinished.failed(*id, |_| 0);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_proto::{Incarnation, Version};

    fn id(place: u32) -> PendingId {
        PendingId { sequence: Version::first(Incarnation(1)).sequence(), place }
    }

    #[test]
    fn what_has_failed_rests_until_it_is_due_and_is_asked_for_once() {
        let mut unfinished = Unfinished::default();
        unfinished.begin(id(0));
        unfinished.begin(id(1));
        assert_eq!((unfinished.first_tries(), unfinished.ask_ms()), (2, None));
        assert_eq!(unfinished.failed(id(0), |failures| 100 * u64::from(failures)), 1);
        unfinished.finished(id(1));
        assert_eq!(unfinished.deferred(99).not_due, [id(0)]);
        assert_eq!(unfinished.deferred(100), Deferred::default());
        assert_eq!(unfinished.ask_ms(), Some(100));
        unfinished.asked(100);
        assert_eq!(unfinished.ask_ms(), Some(100 + ASK_AGAIN_MS));
        unfinished.begin(id(0));
        assert_eq!(unfinished.deferred(100).under_way, [id(0)]);
        assert_eq!((unfinished.first_tries(), unfinished.ask_ms()), (0, None), "it is not the first try");
        assert_eq!(unfinished.failed(id(0), |failures| 100 * u64::from(failures)), 2);
        assert_eq!(unfinished.ask_ms(), Some(200));
    }
}
