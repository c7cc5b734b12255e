//! The live page: one self-contained HTML file, and the state as JSON, which it fetches again and again.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State as Shared;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::state::State;
use crate::Failure;

/// A page that is served.
pub struct Page {
    address: SocketAddr,
    state: watch::Sender<State>,
    end: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Page {
    /// Serves the page.
    pub async fn open(address: SocketAddr, state: State) -> Result<Self, Failure> {
        let listener =
            TcpListener::bind(address).await.map_err(|error| format!("the page, at {address}: {error}"))?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(state);
        let (end, ended) = oneshot::channel::<()>();
        let routes = Router::new()
            .route("/", get(|| std::future::ready(Html(include_str!("page.html")))))
            .route("/state.json", get(now))
            .with_state(seen);
        let server = axum::serve(listener, routes).with_graceful_shutdown(async {
            drop(ended.await);
        });
        Ok(Self { address, state, end, server: tokio::spawn(async move { server.await }) })
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it shows.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// What it shows.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Ends it.
    pub async fn close(self) {
        drop(self.end);
        if let Ok(Err(error)) = self.server.await {
            tracing::warn!(%error, "the page's server has failed");
        }
    }
}

async fn now(Shared(state): Shared<watch::Receiver<State>>) -> impl IntoResponse {
    let json = serde_json::to_string(&*state.borrow()).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json)
}
