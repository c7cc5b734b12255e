//! A large body on its way from the network into a blob: a few pieces in between, and a hash of all that has
//! passed. The network's end belongs to the connection and dies with it; the blob's end belongs to the
//! engine. So a body whose connection is gone has no end, whatever the network says about it, and is never
//! taken for a whole one.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{Mutex, mpsc};
use tollgate::proto::blobs::BlobStream;
use tollgate::proto::{BlobError, EffectName};

use crate::body::{Arrival, CUT_OFF};
use crate::problem::{Problem, ProblemKind};

/// Pieces that wait between the network and the blob: each has what a connection reads at a time, up to 400
/// KiB in hyper.
const PIECES_WAITING_MAX: usize = 2;

/// What errors of the stream name instead of a blob: nobody sees them.
const ARRIVING: &str = "arriving";

/// The blob's end. Clones share it.
#[derive(Clone)]
pub(super) struct Content {
    shared: Arc<Mutex<Passage>>,
}

struct Passage {
    beginning: Option<Bytes>,
    pieces: mpsc::Receiver<Piece>,
    hasher: blake3::Hasher,
    progress: Progress,
}

#[derive(Clone)]
enum Progress {
    Untouched,
    Begun,
    Whole,
    Failed(Problem),
}

enum Piece {
    Data(Bytes),
    End,
    Failed(Problem),
}

/// The network's end.
pub(super) struct Pump {
    arrival: Arrival,
    pieces: mpsc::Sender<Piece>,
}

impl Content {
    /// What has arrived of a body, and what is going to. `hasher` is continued with it.
    pub(super) fn of(beginning: Bytes, arrival: Arrival, hasher: blake3::Hasher) -> (Self, Pump) {
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        (Self::new(beginning, pieces, hasher), Pump { arrival, pieces: sender })
    }

    /// A body that has arrived.
    pub(super) fn whole(body: Bytes, hasher: blake3::Hasher) -> Self {
        let (sender, pieces) = mpsc::channel(1);
        sender.try_send(Piece::End).expect("a new channel has room");
        Self::new(body, pieces, hasher)
    }

    fn new(beginning: Bytes, pieces: mpsc::Receiver<Piece>, hasher: blake3::Hasher) -> Self {
        let passage = Passage { beginning: Some(beginning), pieces, hasher, progress: Progress::Untouched };
        Self { shared: Arc::new(Mutex::new(passage)) }
    }

    /// The body as what becomes a blob. It can be read once.
    pub(super) fn stream(&self) -> BlobStream {
        Box::pin(stream::try_unfold(self.clone(), |content| async move {
            let next = content.shared.lock().await.next().await;
            match next {
                Ok(piece) => Ok(piece.map(|piece| (piece, content))),
                Err(problem) => {
                    let name = EffectName::new(ARRIVING).expect("the constant is a valid name");
                    Err(BlobError::Refused { name, reason: problem.detail().to_owned() })
                }
            }
        }))
    }

    /// The hash of all of it; what is left of it is read, and nothing is kept.
    pub(super) async fn fingerprint(&self) -> Result<String, Problem> {
        let mut passage = self.shared.lock().await;
        while passage.next().await?.is_some() {}
        Ok(passage.hasher.finalize().to_hex().to_string())
    }

    /// Whether nothing of it was read.
    pub(super) async fn is_untouched(&self) -> bool {
        matches!(self.shared.lock().await.progress, Progress::Untouched)
    }

    /// Why it did not arrive, if it is the sender's fault.
    pub(super) async fn problem(&self) -> Option<Problem> {
        match &self.shared.lock().await.progress {
            Progress::Failed(problem) => Some(problem.clone()),
            _ => None,
        }
    }
}

impl Passage {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match &self.progress {
            Progress::Whole => return Ok(None),
            Progress::Failed(problem) => return Err(problem.clone()),
            Progress::Untouched => self.progress = Progress::Begun,
            Progress::Begun => {}
        }
        let piece = match self.beginning.take() {
            Some(beginning) => Piece::Data(beginning),
            None => self.pieces.recv().await.unwrap_or_else(|| {
                // Whoever read it from the network is gone.
                Piece::Failed(Problem::new(ProblemKind::BadRequest, CUT_OFF))
            }),
        };
        match piece {
            Piece::Data(piece) => {
                self.hasher.update(&piece);
                Ok(Some(piece))
            }
            Piece::End => {
                self.progress = Progress::Whole;
                Ok(None)
            }
            Piece::Failed(problem) => {
                self.progress = Progress::Failed(problem.clone());
                Err(problem)
            }
        }
    }
}

impl Pump {
    /// Reads from the network until the body is whole, or fails, or nobody wants it any more.
    pub(super) async fn run(mut self) {
        loop {
            let (piece, is_last) = match self.arrival.next().await {
                Ok(Some(piece)) => (Piece::Data(piece), false),
                Ok(None) => (Piece::End, true),
                Err(problem) => (Piece::Failed(problem), true),
            };
            if self.pieces.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }
}
