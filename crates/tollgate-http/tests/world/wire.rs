//! The network between client and server, in memory: requests and responses get lost, are repeated, and come late.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tollgate::proto::BoxFuture;
use tollgate_http::client::{Transport, TransportError};
use tower::ServiceExt;

use super::life::{Call, Fault, Life};

/// How long a client waits for a response.
const PATIENCE: Duration = Duration::from_secs(2);

/// The server's end: its processes just now, asked in turns.
#[derive(Clone, Default)]
pub struct Wire {
    servers: Arc<Mutex<Vec<Router>>>,
    turn: Arc<AtomicUsize>,
    copies: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

impl Wire {
    /// Puts a process in the place of the one with its number, or next to the others.
    pub fn connect(&self, number: usize, server: Router) {
        let mut servers = self.servers.lock().unwrap();
        if number < servers.len() { servers[number] = server } else { servers.push(server) }
    }

    /// Waits until everything has arrived that was on its way.
    pub async fn quiet(&self) {
        loop {
            let Some(copy) = self.copies.lock().unwrap().pop() else { return };
            copy.await.unwrap();
        }
    }

    /// One request, for real.
    pub async fn exchange(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let failed = |reason: &str| TransportError::failed(reason);
        let server = {
            let servers = self.servers.lock().unwrap();
            let turn = self.turn.fetch_add(1, Ordering::SeqCst);
            servers.get(turn % servers.len().max(1)).cloned().ok_or_else(|| failed("no server listens"))?
        };
        let exchange = async {
            let response = server.oneshot(request.map(Body::from)).await.expect("a router has no errors");
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|_| failed("the response was cut off"))?.to_bytes();
            Ok(http::Response::from_parts(parts, body))
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(failed("no answer in time")))
    }

    fn copy(&self, request: http::Request<Bytes>, after: Duration) {
        let wire = self.clone();
        let copy = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = wire.exchange(request).await;
        });
        self.copies.lock().unwrap().push(copy);
    }
}

/// The client's end, of one life of a client.
pub struct MortalTransport {
    pub wire: Wire,
    pub life: Arc<Life>,
}

impl Transport for MortalTransport {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            let lost = || TransportError::failed("the connection broke");
            let answered = |status: u16| {
                let mut response = http::Response::new(Bytes::from_static(b"<h1>a proxy's own page</h1>"));
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
                response
            };
            let fault = self.life.begin(Call::Http, request.method().as_str()).await;
            match fault {
                Some(Fault::LostBefore) => return Err(lost()),
                Some(Fault::Busy) => return Ok(answered(503)),
                Some(Fault::CopySoon) => self.wire.copy(request.clone(), Duration::from_millis(30)),
                Some(Fault::CopyLate) => self.wire.copy(request.clone(), Duration::from_secs(100)),
                Some(Fault::Twice) => {
                    let (one, other) =
                        tokio::join!(self.wire.exchange(request.clone()), self.wire.exchange(request));
                    self.life.end(fault).await;
                    return one.and(other);
                }
                _ => {}
            }
            let response = self.wire.exchange(request).await;
            self.life.end(fault).await;
            match fault {
                Some(Fault::LostAfter) => Err(lost()),
                Some(Fault::BadGateway) => Ok(answered(502)),
                _ => response,
            }
        })
    }
}
