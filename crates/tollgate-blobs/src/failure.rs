//! What the failures of an object store mean: whether it helps to repeat, and what to say. The only place that looks into its
//! errors. `object_store` keeps the type that knows a response's status to itself, so the status is read from what it says; tests
//! hold it to that.

use std::error::Error as StdError;

use object_store::Error;
use tollgate_proto::{BlobError, EffectName};

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// There is no such object.
    NoObject,
    /// There is no such bucket or container.
    NoContainer,
    /// Whoever asks may not, or is not known.
    Denied,
    /// It will never be done as asked for.
    Refused,
    /// It could not be reached, or has a passing fault.
    Passing,
}

/// What the services call a missing bucket (S3) or container (Azure) in their answers.
const NO_CONTAINER: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];

/// What `object_store` writes before the status of a response, and before that of one of many deletions in a response.
const STATUS: [&str; 2] = ["status code: ", "(code: "];

/// Statuses of the 400s that pass: the request took too long; conflicts with another; too many requests.
const PASSING_STATUSES: [u16; 3] = [408, 409, 429];

/// What it says of an answer without a place to go to, which is how S3 speaks of another region's bucket.
const BARE_REDIRECT: &str = "incorrectly configured region";

/// What kind of failure this is.
pub(crate) fn meaning(error: &Error) -> Meaning {
    match error {
        Error::NotFound { .. } if says_no_container(error) => Meaning::NoContainer,
        Error::NotFound { .. } => Meaning::NoObject,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Meaning::Denied,
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => Meaning::Refused,
        Error::Generic { .. } => meaning_of_generic(error),
        _ => Meaning::Passing,
    }
}

/// Whether it says that there is no such object, in a bucket or container that exists.
pub(crate) fn is_missing_object(error: &Error) -> bool {
    meaning(error) == Meaning::NoObject
}

/// The same, as the engine understands it.
pub(crate) fn blob_error(name: &EffectName, place: &str, error: &Error) -> BlobError {
    let reason = match meaning(error) {
        // No object, while one is being stored: its upload was removed meanwhile. Another one may succeed.
        Meaning::Passing | Meaning::NoObject => {
            return BlobError::Unavailable { name: name.clone(), reason: format!("{place}: {error}") };
        }
        Meaning::NoContainer => format!("{place} does not exist: create it, or correct its name ({error})"),
        Meaning::Denied => format!("{place} does not let us: check credentials and permissions ({error})"),
        Meaning::Refused => {
            return BlobError::Refused { name: name.clone(), reason: format!("{place}: {error}") };
        }
    };
    BlobError::Misconfigured { name: name.clone(), reason }
}

fn meaning_of_generic(error: &Error) -> Meaning {
    let text = error.to_string();
    if says_no_container(error) {
        return Meaning::NoContainer;
    }
    if text.contains(BARE_REDIRECT) {
        return Meaning::Refused;
    }
    let mut after = STATUS.iter().filter_map(|before| Some(text.split_once(before)?.1));
    let status: Option<u16> = after.find_map(|after| after.get(..3)?.parse().ok());
    match status {
        Some(401 | 403) => Meaning::Denied,
        Some(status) if PASSING_STATUSES.contains(&status) => Meaning::Passing,
        Some(300..500) => Meaning::Refused,
        _ => Meaning::Passing,
    }
}

fn says_no_container(error: &Error) -> bool {
    let mut cause: Option<&dyn StdError> = Some(error);
    while let Some(current) = cause {
        let text = current.to_string();
        if NO_CONTAINER.iter().any(|code| text.contains(code)) {
            return true;
        }
        cause = current.source();
    }
    false
}
