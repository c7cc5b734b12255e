//! Decorators for [`Broker`]. A wrapper overrides the calls it cares about (to count, delay, fail or watch
//! them); everything else is forwarded to the inner broker.

use crate::broker::{Broker, BrokerError, Delivery, OutgoingMessage, Settlement};
use crate::ids::EndpointName;
use crate::store::BoxFuture;

/// A broker around another one. Every type that implements it is a [`Broker`].
///
/// Every method forwards to [`BrokerWrapper::inner`] by default, so a wrapper can't forget one: an inner
/// broker whose queue is missing says so through any number of wrappers.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use tollgate_proto::{BoxFuture, Broker, BrokerError, BrokerWrapper, OutgoingMessage};
///
/// struct Sends {
///     inner: Arc<dyn Broker>,
///     count: AtomicU64,
/// }
///
/// impl BrokerWrapper for Sends {
///     fn inner(&self) -> &dyn Broker {
///         &*self.inner
///     }
///
///     fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
///         self.count.fetch_add(1, Ordering::Relaxed);
///         self.inner.send(messages)
///     }
/// }
///
/// fn wrapped(inner: Arc<dyn Broker>) -> Arc<dyn Broker> {
///     Arc::new(Sends { inner, count: AtomicU64::new(0) })
/// }
/// ```
pub trait BrokerWrapper: Send + Sync + 'static {
    /// The broker inside.
    fn inner(&self) -> &dyn Broker;

    /// Forwards to [`Broker::send`].
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        self.inner().send(messages)
    }

    /// Forwards to [`Broker::receive`].
    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        self.inner().receive(endpoint, max)
    }

    /// Forwards to [`Broker::settle`].
    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        self.inner().settle(endpoint, settlements)
    }

    /// Forwards to [`Broker::verify`].
    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.inner().verify(endpoint)
    }
}

impl<W: BrokerWrapper> Broker for W {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        BrokerWrapper::send(self, messages)
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        BrokerWrapper::receive(self, endpoint, max)
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        BrokerWrapper::settle(self, endpoint, settlements)
    }

    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        BrokerWrapper::verify(self, endpoint)
    }
}
