//! Names that components of one gate reserve for what they keep in its stores.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// All names that are claimed on a gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    names: Arc<Mutex<HashSet<String>>>,
}

/// A name that is reserved until this is dropped ([`crate::Edge::claim`]).
#[derive(Debug)]
#[must_use]
pub struct Claim {
    claims: Claims,
    name: String,
}

impl Claims {
    /// Reserves a name. `None`: it is reserved already.
    pub(crate) fn claim(&self, name: String) -> Option<Claim> {
        let is_new = self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        is_new.then(|| Claim { claims: self.clone(), name })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
