//! Frames on a connection, and the two that open it. Both ends use this; what calls and answers are is not known here.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::wire::Wire;

/// What comes in.
pub type Source = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

/// What goes out.
pub type Sink = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// Longest frame. The largest call is a commit at the embedded store's limit of 64 MiB; four times that leaves room for
/// loads of several large items.
pub const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most calls of one client at a time. The engine makes one call for each partition at work and a few batches.
pub const CALLS_MAX: usize = 4096;

/// Most frames that wait to be written; whoever has more waits.
pub const FRAMES_WAITING_MAX: usize = 1024;

/// How long the other end may take to introduce itself.
const INTRODUCTION_MAX: Duration = Duration::from_secs(5);

/// What a client says first, before the secret. It differs from the server's answer, because a socket that tries to
/// connect to a port of its own machine where nobody listens may be given that very port, and then talks to itself.
const FROM_CLIENT: &str = "tollgate client 1";

/// What a server answers.
const FROM_SERVER: &str = "tollgate server 1";

/// Makes a connection into frames.
pub fn split(stream: TcpStream) -> io::Result<(Source, Sink)> {
    // Answers are small and waited for.
    stream.set_nodelay(true)?;
    let codec =
        || LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).little_endian().new_codec();
    let (read, write) = stream.into_split();
    Ok((FramedRead::new(read, codec()), FramedWrite::new(write, codec())))
}

/// The client's side of the introduction.
pub async fn introduce(source: &mut Source, sink: &mut Sink, secret: u64) -> io::Result<()> {
    sink.send(greeting(FROM_CLIENT, Some(secret))).await?;
    expect(source, &greeting(FROM_SERVER, None)).await
}

/// The server's side of the introduction.
pub async fn welcome(source: &mut Source, sink: &mut Sink, secret: u64) -> io::Result<()> {
    expect(source, &greeting(FROM_CLIENT, Some(secret))).await?;
    sink.send(greeting(FROM_SERVER, None)).await
}

fn greeting(text: &str, secret: Option<u64>) -> Bytes {
    let mut frame = BytesMut::new();
    (text.to_owned(), secret).put(&mut frame);
    frame.freeze()
}

async fn expect(source: &mut Source, greeting: &Bytes) -> io::Result<()> {
    let stranger = || io::Error::new(io::ErrorKind::InvalidData, "the other end is somebody else");
    match tokio::time::timeout(INTRODUCTION_MAX, source.next()).await {
        Ok(Some(Ok(frame))) if frame == *greeting => Ok(()),
        Ok(Some(_)) | Err(_) => Err(stranger()),
        Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes frames until nobody can send any more; those that have gathered meanwhile go out together.
pub async fn write(mut sink: Sink, mut waiting: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(frame) = waiting.recv().await {
        sink.feed(frame).await?;
        while let Ok(frame) = waiting.try_recv() {
            sink.feed(frame).await?;
        }
        SinkExt::<Bytes>::flush(&mut sink).await?;
    }
    Ok(())
}
