//! The one form of future that the traits of this crate share.

use std::pin::Pin;

/// A boxed future, so that stores, brokers, blob storage and side effects can be used as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
