//! Names of everything that one server keeps: its request buckets, its upload partitions, and the markers of
//! its executions.
//!
//! Each of them contains the server's tag, so that two servers never share one, not even in a partition where
//! both execute requests.

use crate::RESERVED;
use crate::request_id::RequestId;

/// Hexadecimal digits of a server's tag.
const TAG_DIGITS: usize = 16;

/// The names of one server.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// What the names of all its partitions begin with.
    prefix: String,
    /// A hash of the endpoint and the server's name: short, and different for different pairs.
    tag: String,
    buckets: u16,
    bucket_key: [u8; 32],
}

impl Names {
    /// The names of the server `name` of an endpoint, whose requests are spread by a hash with the key.
    pub(super) fn new(endpoint: &str, name: &str, buckets: u16, bucket_key: [u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(endpoint.len() as u64).to_le_bytes());
        hasher.update(endpoint.as_bytes()).update(name.as_bytes());
        let tag = hasher.finalize().to_hex()[..TAG_DIGITS].to_owned();
        Self { prefix: format!("{RESERVED}{endpoint}{name}/{tag}/"), tag, buckets, bucket_key }
    }

    /// What the names of all its partitions begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the names of all its request buckets begin with.
    pub(super) fn bucket_prefix(&self) -> String {
        format!("{}requests/", self.prefix)
    }

    /// The partition in which a request lies. Its number does not follow from the id alone, which a caller
    /// chooses.
    pub(super) fn bucket(&self, id: RequestId) -> String {
        let hash = blake3::keyed_hash(&self.bucket_key, id.as_bytes());
        let [first, second, third, fourth, ..] = *hash.as_bytes();
        let number = u32::from_le_bytes([first, second, third, fourth]) % u32::from(self.buckets);
        format!("{}requests/{number}", self.prefix)
    }

    /// The partition in which the large body of a request arrives, and lies with what is known of it.
    pub(super) fn upload_partition(&self, number: u16) -> String {
        format!("{}uploads/{number}", self.prefix)
    }

    /// The item of the partition in which a request was executed that holds its response: the marker of its
    /// execution.
    pub(super) fn response_item(&self, id: RequestId) -> String {
        format!("http-response/{}/{id}", self.tag)
    }
}

/// The item of a bucket that holds the request, or of the upload partition where its body arrives.
pub(super) fn request_item(id: RequestId) -> String {
    format!("{REQUEST}{id}")
}

/// What the names of items begin with that hold requests.
pub(super) const REQUEST: &str = "request/";

/// The item of a bucket that counts a caller's requests there.
pub(super) fn quota_item(caller: &str) -> String {
    format!("open/{}", &blake3::hash(caller.as_bytes()).to_hex()[..32])
}

/// The key of the record in a bucket that says that a request was deleted.
pub(super) fn deletion_key(id: RequestId) -> String {
    format!("deleted/{id}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(endpoint: &str, name: &str) -> Names {
        Names::new(endpoint, name, 256, [0; 32])
    }

    #[test]
    fn two_servers_share_no_name_however_endpoint_and_base_are_cut() {
        let id = RequestId::random();
        let servers = [("a", "/b/c"), ("a/b", "/c"), ("a", "/b"), ("a", "/c"), ("b", "/b")];
        let all = servers.map(|(endpoint, name)| names(endpoint, name));
        let markers: HashSet<String> = all.iter().map(|names| names.response_item(id)).collect();
        let prefixes: HashSet<&str> = all.iter().map(Names::prefix).collect();
        assert_eq!((markers.len(), prefixes.len()), (5, 5));
    }

    #[test]
    fn ids_that_begin_alike_are_spread_over_all_buckets() {
        let names = names("payments", "/payments");
        let id = |number: u32| format!("0190f3d25f0e7c3a9d538b1c{number:08x}").parse::<RequestId>().unwrap();
        let used: HashSet<String> = (0..4_096).map(|number| names.bucket(id(number))).collect();
        assert_eq!(used.len(), 256);
        let keyed = Names::new("payments", "/payments", 256, [7; 32]);
        assert!((0..100).any(|number| keyed.bucket(id(number)) != names.bucket(id(number))));
    }
}
