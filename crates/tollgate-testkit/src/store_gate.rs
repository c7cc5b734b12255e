//! A place where a call to a store stops until a test lets it go on: how stalls, zombies and races are put in an order
//! that a test chooses. Made by [`FaultyStore::pause_next`](crate::FaultyStore::pause_next).

use std::sync::Arc;

use tokio::sync::watch;

/// Holds one call back. Dropping it lets the call go on.
#[derive(Debug)]
pub struct Gate {
    state: Arc<GateState>,
}

#[derive(Debug)]
pub(crate) struct GateState {
    reached: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn closed() -> (Self, Arc<GateState>) {
        let state =
            Arc::new(GateState { reached: watch::Sender::new(false), open: watch::Sender::new(false) });
        (Self { state: Arc::clone(&state) }, state)
    }

    /// Waits until a call stands before the gate, or has passed it.
    pub async fn reached(&self) {
        let _ = self.state.reached.subscribe().wait_for(|reached| *reached).await;
    }

    /// Lets the call go on.
    pub fn open(&self) {
        self.state.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl GateState {
    pub(crate) async fn pass(&self) {
        self.reached.send_replace(true);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}
