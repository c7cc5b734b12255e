//! Refusals as problem details (RFC 9457): one kind for each reason, the same for the server and the edge.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tollgate::HandlerError;

use crate::stored_response::Response;

/// The media type of problem details.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// What every kind's URI begins with.
pub(crate) const NAMESPACE: &str = "urn:tollgate:problem:";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $status:ident, $text:literal, $title:literal;)*) => {
        /// The kinds of problems. Each is a URI in an answer's `type`, `urn:tollgate:problem:` and a name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $($(#[$doc])* $name,)*
        }

        impl ProblemKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The status that it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The URI that names it.
            pub const fn uri(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:tollgate:problem:", $text),)* }
            }

            /// What it is, in one line.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

kinds! {
    /// The path has no request id.
    InvalidId => BAD_REQUEST, "invalid-id", "The request id has not 128 bits";
    /// The request can't be understood.
    BadRequest => BAD_REQUEST, "bad-request", "The request can't be understood";
    /// The request has no `Idempotency-Key`.
    KeyMissing => BAD_REQUEST, "idempotency-key-missing", "The request has no Idempotency-Key";
    /// The caller is not known.
    Unauthenticated => UNAUTHORIZED, "unauthenticated", "The caller is not known";
    /// The caller may not do that.
    Forbidden => FORBIDDEN, "forbidden", "The caller may not do this";
    /// There is no such request, or it is another caller's.
    UnknownId => NOT_FOUND, "unknown-id", "There is no request with this id";
    /// The method makes no sense here.
    MethodNotAllowed => METHOD_NOT_ALLOWED, "method-not-allowed", "A request is stored, executed, read or deleted";
    /// The body came too slowly.
    TooSlow => REQUEST_TIMEOUT, "too-slow", "The body came too slowly";
    /// Another request is stored under the id.
    IdInUse => CONFLICT, "id-in-use", "Another request is stored under this id";
    /// The request is stored and was never executed.
    NotExecuted => CONFLICT, "not-executed", "The request has not been executed yet";
    /// The same request is being executed.
    InProgress => CONFLICT, "in-progress", "The same request is being executed";
    /// The request was deleted.
    Deleted => GONE, "deleted", "The request was deleted";
    /// The stored request is not the one that the caller means.
    OtherIncarnation => PRECONDITION_FAILED, "other-incarnation", "The stored request is not the one that is meant";
    /// The request has no `If-Match`, and the server demands one.
    PreconditionRequired => PRECONDITION_REQUIRED, "precondition-required", "The request has no If-Match";
    /// The body is encoded, and is only taken as it is.
    UnsupportedEncoding => UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", "The body is encoded";
    /// The caller has too many requests open, or makes too many.
    TooManyRequests => TOO_MANY_REQUESTS, "too-many-requests", "The caller makes too many requests";
    /// The body is larger than what is taken.
    TooLarge => PAYLOAD_TOO_LARGE, "too-large", "The body is too large";
    /// Another payload came under a used key.
    KeyReused => UNPROCESSABLE_ENTITY, "idempotency-key-reused", "Another request was made under this Idempotency-Key";
    /// The handler will never execute it.
    Refused => UNPROCESSABLE_ENTITY, "refused", "The request is refused";
    /// Something that is stored can't be read, or the server is set up wrongly.
    Broken => INTERNAL_SERVER_ERROR, "broken", "The server can't serve this request";
    /// It could not be executed now.
    Unavailable => SERVICE_UNAVAILABLE, "unavailable", "The request can't be executed now";
}

impl ProblemKind {
    /// Seconds after which it is worth trying again, where it is.
    pub(crate) const fn retry_after(self) -> Option<u32> {
        match self {
            Self::InProgress | Self::Unavailable => Some(1),
            Self::TooManyRequests => Some(60),
            _ => None,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
}

/// What the reason of a handler's error begins with that was made of a problem.
const REFUSED: &str = "urn:tollgate:problem:refused: ";

impl From<Problem> for HandlerError {
    fn from(problem: Problem) -> Self {
        match problem.kind {
            ProblemKind::Unavailable | ProblemKind::InProgress => Self::retry(problem.detail),
            _ => Self::permanent(format!("{REFUSED}{}", problem.detail)),
        }
    }
}

#[derive(Serialize)]
struct Details<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// A refusal of a kind. `detail` is for people and leaves the server; never put a secret into it.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        debug_assert!(kind.uri().starts_with(NAMESPACE), "the macro makes the URIs");
        Self { kind, detail: detail.into() }
    }

    /// Its kind.
    pub const fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// A description for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A handler's refusal, for good: 422, with words for the caller.
    ///
    /// `Err(Problem::refused("no credit").into())` ends a handler of [`crate::server::ExactlyOnce`] or
    /// [`crate::edge::idempotent`]. The reason of any other permanent error goes to the log only, since it
    /// may name stores, items or addresses.
    pub fn refused(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Refused, detail)
    }

    /// The refusal that a handler's permanent error becomes.
    #[cfg(any(feature = "server", feature = "edge"))]
    pub(crate) fn refusal(reason: &str) -> Self {
        Self::of_reason(reason).unwrap_or_else(|| {
            tracing::warn!(reason, "request refused by its handler");
            Self::refused("the server refuses this request")
        })
    }

    /// The problem that a handler's error was made of, if it was.
    #[cfg(any(feature = "server", feature = "edge"))]
    pub(crate) fn of_reason(reason: &str) -> Option<Self> {
        let rest = reason.strip_prefix(REFUSED)?;
        Some(Self::refused(rest))
    }

    /// The answer that says so.
    ///
    /// # Panics
    /// Never: texts and a number can be written as JSON.
    pub fn response(&self) -> Response {
        let kind = self.kind;
        let details = Details {
            r#type: kind.uri(),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail: &self.detail,
        };
        let body = serde_json::to_vec(&details).expect("the details are texts and a number");
        Response::new(kind.status(), PROBLEM_JSON, Bytes::from(body))
    }

    /// Seconds after which it is worth trying again, where it is.
    pub(crate) const fn retry_after(&self) -> Option<u32> {
        self.kind.retry_after()
    }
}
