//! How messages are taken: one pull at a time for each slice, of as many as are wanted. Messages that are too
//! early are put back here, and those that were delivered too often are put aside.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::connection::State as Connected;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::AckKind;
use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{BrokerError, EndpointName};

use super::failure::{self, Pulled};
use super::names::Names;
use super::{Handle, NOT_BEFORE, UNCONNECTED, dead_letter, forgotten, put_aside, unix_ms};
use tollgate_broker_kit::{Arrival, Fetcher, Order};

/// How long the server looks for messages before it says that there are none. Short, since closing waits for
/// it.
const EXPIRES: Duration = Duration::from_secs(2);

/// How much longer to wait for it to say so.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// For how long a message is put back that can't be dead-lettered.
const PUT_BACK_FOR: Duration = Duration::from_secs(5);

/// How long the server may take to hear of the end.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// Pulls the messages of one slice of an endpoint.
pub(super) struct Puller {
    client: Client,
    jetstream: Context,
    connections: watch::Receiver<u64>,
    endpoint: EndpointName,
    names: Names,
    slice: u16,
    deliveries_max: Option<u32>,
    /// Kept from one pull to the next: what comes late is not lost.
    inbox: Option<(Subject, Subscriber)>,
    /// When the stream was made. Another time: it is another stream, with other messages under the same
    /// numbers.
    stream_made: Option<SystemTime>,
    /// The connection on which it was looked for what the server has forgotten.
    reminded_on: Option<u64>,
}

impl Puller {
    pub(super) const fn new(
        client: Client,
        jetstream: Context,
        connections: watch::Receiver<u64>,
        endpoint: EndpointName,
        names: Names,
        slice: u16,
        deliveries_max: Option<u32>,
    ) -> Self {
        Self {
            client,
            jetstream,
            connections,
            endpoint,
            names,
            slice,
            deliveries_max,
            inbox: None,
            stream_made: None,
            reminded_on: None,
        }
    }

    async fn pull(&mut self, order: &Order<Handle>) -> Result<(), BrokerError> {
        if self.client.connection_state() != Connected::Connected {
            return Err(self.unavailable(&UNCONNECTED));
        }
        let connection = *self.connections.borrow_and_update();
        let subject = match &self.inbox {
            Some((subject, _)) => subject.clone(),
            None => self.subscribe(order).await?,
        };
        if self.reminded_on != Some(connection) {
            let reminded = forgotten::remind(&self.client, &self.jetstream, &self.names, self.slice).await;
            reminded.map_err(|error| self.unavailable(&error))?;
            self.reminded_on = Some(connection);
        }
        let request = format!("{{\"batch\":{},\"expires\":{}}}", order.missing(), EXPIRES.as_nanos());
        let asked = self.client.publish_with_reply(self.names.next(self.slice), subject, request.into());
        asked.await.map_err(|error| self.unavailable(&error))?;
        let ended = self.take(order).await;
        if ended.is_err() {
            self.inbox = None;
        }
        ended
    }

    async fn subscribe(&mut self, order: &Order<Handle>) -> Result<Subject, BrokerError> {
        let consumer = Names::consumer(self.slice);
        // One that is missing does not answer, so it is looked for.
        let made = provisioned(&self.jetstream, &self.names.stream, &consumer).await;
        let made = made.map_err(|error| self.unavailable(&error))?;
        if self.stream_made.is_some() && made != self.stream_made {
            order.forget_all();
        }
        self.stream_made = made;
        if made.is_none() {
            let stream = &self.names.stream;
            let reason =
                format!("there is no consumer {consumer} of a stream {stream}: make them with `provision`");
            return Err(failure::misconfigured(&self.endpoint, reason));
        }
        let subject = Subject::from(self.client.new_inbox());
        let subscriber =
            self.client.subscribe(subject.clone()).await.map_err(|error| self.unavailable(&error))?;
        self.inbox = Some((subject.clone(), subscriber));
        Ok(subject)
    }

    fn unavailable(&self, reason: &impl Display) -> BrokerError {
        failure::unavailable(&self.endpoint, reason)
    }

    async fn take(&mut self, order: &Order<Handle>) -> Result<(), BrokerError> {
        let until = Instant::now() + EXPIRES + ANSWER_WITHIN;
        while order.missing() > 0 {
            let Some((_, messages)) = &mut self.inbox else { return Ok(()) };
            let next = tokio::select! {
                next = timeout_at(until, messages.next()) => next,
                // A pull does not outlive its connection.
                _ = self.connections.changed() => return Ok(()),
            };
            let first = match next {
                Ok(Some(first)) => first,
                Ok(None) => return Err(self.unavailable(&"the subscription has ended")),
                // 2.9.10 now and then forgets to say that there was nothing. If nobody is there at all,
                // whoever subscribes finds out.
                Err(_) => {
                    self.inbox = None;
                    return Ok(());
                }
            };
            // Whatever else is here comes along.
            let mut came = vec![first];
            while came.len() < order.missing()
                && let Some(Some(next)) = messages.next().now_or_never()
            {
                came.push(next);
            }
            let mut arrivals = Vec::with_capacity(came.len());
            let mut ended = None;
            for message in came {
                match message.status {
                    None | Some(StatusCode::OK) => arrivals.extend(self.arrival(message).await),
                    Some(status) => ended = Some(failure::of_status(status, message.description.as_deref())),
                }
            }
            if !arrivals.is_empty() {
                order.deliver(arrivals);
            }
            match ended {
                None => {}
                Some(Pulled::Nothing) => return Ok(()),
                Some(Pulled::Gone(reason)) => {
                    order.forget_all();
                    return Err(self.unavailable(&reason));
                }
                Some(Pulled::Refused(reason)) => return Err(self.unavailable(&reason)),
            }
        }
        Ok(())
    }

    /// Ends the subscription, and gives back what came too late.
    async fn unsubscribe(&mut self) {
        let Some((_, mut messages)) = self.inbox.take() else { return };
        let unsubscribed = async {
            messages.unsubscribe().await?;
            self.client.flush().await?;
            while let Some(Some(message)) = messages.next().now_or_never() {
                if let Message { reply: Some(reply), status: None, .. } = message {
                    self.client.publish(reply, AckKind::Nak(None).into()).await?;
                }
            }
            Ok::<_, async_nats::Error>(())
        };
        match timeout(STOPPED_WITHIN, unsubscribed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(endpoint = %self.endpoint, %error, "the last pull could not be ended");
            }
            Err(_) => {
                tracing::warn!(endpoint = %self.endpoint, "the last pull could not be ended in time");
            }
        }
    }

    /// What a receiver gets of a message: nothing, if it is too early or was delivered too often.
    async fn arrival(&self, message: Message) -> Option<Arrival<Handle>> {
        let Message { reply: Some(reply), payload, headers, .. } = message else { return None };
        let deliveries = deliveries(&reply);
        let not_before = headers
            .as_ref()
            .and_then(|headers| headers.get(NOT_BEFORE))
            .and_then(|text| text.as_str().parse::<u64>().ok());
        if let Some(not_before) = not_before
            && deliveries <= 1
            && let Some(early_ms) = not_before.checked_sub(unix_ms()).filter(|early_ms| *early_ms > 0)
        {
            self.tell(reply, AckKind::Nak(Some(Duration::from_millis(early_ms)))).await;
            return None;
        }
        // The first delivery of a message that was too early went to nobody.
        let delivery_count =
            if not_before.is_some() { deliveries.saturating_sub(1).max(1) } else { deliveries };
        let handle = Handle { reply, headers: headers.map(Arc::new) };
        if self.deliveries_max.is_some_and(|max| delivery_count > max) {
            let reason = format!("it was delivered {} times and never settled", delivery_count - 1);
            tracing::warn!(endpoint = %self.endpoint, %reason, "a message is dead-lettered");
            let letter = dead_letter(&handle, payload, delivery_count, &reason);
            let put_aside = put_aside(&self.jetstream, &self.endpoint, &self.names, letter).await;
            // The others go on: this one comes again, and is put aside when that is possible.
            if let Err(error) = &put_aside {
                tracing::error!(endpoint = %self.endpoint, %error, "a message can't be dead-lettered; it is put back");
            }
            let kind = put_aside.map_or(AckKind::Nak(Some(PUT_BACK_FOR)), |()| AckKind::Ack);
            self.tell(handle.reply, kind).await;
            return None;
        }
        Some(Arrival { handle, envelope: payload, delivery_count })
    }

    /// Tells the server about a delivery that no receiver gets. Unconfirmed: what it does not hear of comes
    /// again.
    async fn tell(&self, reply: Subject, kind: AckKind) {
        if let Err(error) = self.client.publish(reply, kind.into()).await {
            tracing::warn!(endpoint = %self.endpoint, %error, "the server could not be told about a delivery");
        }
    }
}

/// The time when the stream was made, if the server has it and such a consumer of it.
async fn provisioned(
    jetstream: &Context,
    stream: &str,
    consumer: &str,
) -> Result<Option<SystemTime>, async_nats::Error> {
    use async_nats::jetstream::context::GetStreamErrorKind;

    match jetstream.get_stream(stream).await {
        Ok(stream) => {
            let found: Result<PullConsumer, _> = stream.get_consumer(consumer).await;
            Ok(found.ok().map(|_| stream.cached_info().created.into()))
        }
        Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Fetcher<Handle> for Puller {
    const FETCH_MAX: usize = 256;
    // Looking for stream, consumer and deleted messages takes up to five calls of the client's 5 s, before
    // the pull itself.
    const FETCH_WITHIN: Duration = Duration::from_secs(30);
    // Until the pull ends by itself. One that is left open with nobody behind it makes nats-server (2.9.10)
    // mistake the message that is redelivered next for the newest one: it comes only when its `ack_wait` is
    // over.
    const CLOSE_WAIT: Duration = Duration::from_secs(EXPIRES.as_secs() + ANSWER_WITHIN.as_secs());

    fn fetch<'a>(&'a mut self, order: &'a Order<Handle>) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(self.pull(order))
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.unsubscribe())
    }
}

/// How often a message was delivered, as the subject says by which it is acknowledged:
/// `$JS.ACK.STREAM.CONSUMER.DELIVERIES...`, or with two more parts before the stream (architecture decision
/// record 15 of NATS).
fn deliveries(reply: &Subject) -> u32 {
    let parts: Vec<&str> = reply.split('.').collect();
    let place = if parts.len() >= 11 { 6 } else { 4 };
    parts.get(place).and_then(|part| part.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_counted_in_both_kinds_of_subjects() {
        assert_eq!(deliveries(&"$JS.ACK.stream.slice-0.3.17.18.1700000000.5".into()), 3);
        assert_eq!(deliveries(&"$JS.ACK._.hash.stream.slice-0.4.17.18.1700000000.5".into()), 4);
        assert_eq!(deliveries(&"$JS.ACK._.hash.stream.slice-0.4.17.18.1700000000.5.token".into()), 4);
    }
}
