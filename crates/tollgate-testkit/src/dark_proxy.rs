//! A proxy whose connections go dark: as behind a gateway that has forgotten them, nothing passes any more,
//! and neither side is told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A proxy before a server. It ends when it is dropped.
#[derive(Debug)]
pub struct DarkProxy {
    address: SocketAddr,
    /// Connections that were made in an earlier age pass nothing on.
    age: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl DarkProxy {
    /// Begins to listen before the server at `host:port`.
    ///
    /// # Errors
    /// If no port of this machine is free.
    pub async fn before(server: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let age = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, server.to_owned(), Arc::clone(&age)));
        Ok(Self { address, age, task })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets all present connections go dark. New ones work.
    pub fn darken(&self) {
        self.age.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for DarkProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: String, age: Arc<AtomicU64>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, age) = (server.clone(), Arc::clone(&age));
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let born = age.load(Ordering::SeqCst);
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            tokio::join!(pass(client_in, server_out, &age, born), pass(server_in, client_out, &age, born));
        });
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    age: &AtomicU64,
    born: u64,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if age.load(Ordering::SeqCst) != born {
            // The connection stays open, and what was sent is gone.
            std::future::pending::<()>().await;
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            break;
        }
    }
}
