//! What everything is called on the server: streams, consumers and subjects. A partition's messages all have
//! one subject, so that whoever pulls that subject finds the partition in its cache.

use tollgate_proto::{EndpointName, PartitionKey};

use tollgate_broker_kit::queue_name;

/// Most bytes of the part of a name that comes from the endpoint. A stream's name is a directory, which may
/// have 255; the rest is for the prefix.
const ENDPOINT_BYTES_MAX: usize = 128;

/// The names of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `PREFIX-ENDPOINT`: of the stream, and the first part of other names.
    pub(super) stream: String,
    subjects: String,
    dead_subject: String,
}

impl Names {
    pub(super) fn new(prefix: &str, endpoint: &EndpointName) -> Self {
        let endpoint = queue_name::legal_beside_dead(endpoint, ENDPOINT_BYTES_MAX);
        Self {
            stream: format!("{prefix}-{endpoint}"),
            subjects: format!("{prefix}.queue.{endpoint}"),
            dead_subject: format!("{prefix}.dead.{endpoint}"),
        }
    }

    pub(super) fn dead_stream(&self) -> String {
        format!("{}-dead", self.stream)
    }

    pub(super) fn dead_subject(&self) -> String {
        self.dead_subject.clone()
    }

    /// The subject of a slice.
    pub(super) fn subject(&self, slice: u16) -> String {
        format!("{}.{slice}", self.subjects)
    }

    /// The subjects of all slices.
    pub(super) fn all_subjects(&self) -> String {
        format!("{}.*", self.subjects)
    }

    /// The durable consumer of a slice.
    pub(super) fn consumer(slice: u16) -> String {
        format!("slice-{slice}")
    }

    /// Where a message is acknowledged of which only the number in the stream is known. It has the form of
    /// the subjects that come with deliveries: how often and as which one it was delivered, when, and how
    /// many were left. The server heeds the number.
    pub(super) fn acknowledgement(&self, slice: u16, sequence: u64) -> String {
        format!("$JS.ACK.{}.{}.1.{sequence}.0.0.0", self.stream, Self::consumer(slice))
    }

    /// Where the next messages of a slice are asked for.
    pub(super) fn next(&self, slice: u16) -> String {
        format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, Self::consumer(slice))
    }
}

/// The slice of a partition: the same in every process and version.
pub(super) fn slice(partition: &PartitionKey, slices: u16) -> u16 {
    let digest = blake3::hash(partition.as_str().as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    let slice = u32::from_le_bytes([a, b, c, d]) % u32::from(slices.max(1));
    u16::try_from(slice).expect("a remainder is smaller than the divisor, which has 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_the_same_slice_in_every_version() {
        let of = |partition: &str, slices| slice(&PartitionKey::new(partition).unwrap(), slices);
        assert_eq!(of("customer-7", 1), 0);
        assert_eq!([of("customer-7", 16), of("customer-8", 16), of("customer-9", 16)], [0, 6, 9]);
    }
}
