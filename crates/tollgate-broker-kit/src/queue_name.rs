//! Names of queues, streams and subjects, made from names of endpoints: those may hold anything, these may
//! not.

use tollgate_proto::EndpointName;

/// Hexadecimal digits of the digest that tells names apart which became the same: 2^48 of them.
const DIGEST_DIGITS: usize = 12;

/// The end of the names of queues for dead letters, where no better sign is allowed.
pub const DEAD: &str = "-dead";

/// A name of letters, digits, `_` and `-`, of at most `bytes_max` bytes (more than `DIGEST_DIGITS`), for an
/// endpoint. A name that is legal already stays what it is; another one gets a digest at its end, so that no
/// two endpoints share a queue.
pub fn legal(endpoint: &EndpointName, bytes_max: usize) -> String {
    let name = endpoint.as_str();
    if name.len() <= bytes_max && name.chars().all(is_legal) {
        name.to_owned()
    } else {
        with_digest(name, bytes_max)
    }
}

/// The same, for brokers on which the queue of dead letters has the same name with [`DEAD`] behind it: no
/// endpoint's name ends like that.
pub fn legal_beside_dead(endpoint: &EndpointName, bytes_max: usize) -> String {
    let legal = legal(endpoint, bytes_max);
    if legal.ends_with(DEAD) { with_digest(endpoint.as_str(), bytes_max) } else { legal }
}

fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn with_digest(name: &str, bytes_max: usize) -> String {
    let digest = blake3::hash(name.as_bytes()).to_hex();
    let room = bytes_max.saturating_sub(DIGEST_DIGITS + 1);
    let mut legal: String = name.chars().map(|c| if is_legal(c) { c } else { '_' }).take(room).collect();
    legal.push('-');
    legal.push_str(&digest[..DIGEST_DIGITS]);
    legal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> String {
        legal(&EndpointName::new(name).unwrap(), 40)
    }

    #[test]
    fn a_legal_name_stays_what_it_is() {
        assert_eq!(of("orders_2-eu"), "orders_2-eu");
    }

    #[test]
    fn no_endpoint_has_the_queue_of_another_ones_dead_letters() {
        let of = |name: &str| legal_beside_dead(&EndpointName::new(name).unwrap(), 40);
        assert_ne!(of("orders-dead"), format!("{}{DEAD}", of("orders")));
        assert!(!of("orders-dead").ends_with(DEAD));
        assert_eq!(of("orders"), "orders");
    }

    #[test]
    fn names_that_would_become_the_same_are_told_apart() {
        let (dot, star) = (of("orders.eu"), of("orders*eu"));
        assert!(dot.starts_with("orders_eu-") && star.starts_with("orders_eu-"), "{dot} {star}");
        assert_ne!(dot, star);
        let (long, longer) = (of(&"x".repeat(41)), of(&"x".repeat(42)));
        assert!(long.len() <= 40 && longer.len() <= 40);
        assert_ne!(long, longer);
        assert!(of(&"é".repeat(60)).len() <= 40);
    }
}
