//! Errors of building a broker. Calls of the `Broker` trait answer `tollgate_proto::BrokerError`.

use std::error::Error;
use std::sync::Arc;

/// The reason why a broker could not be built.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerSetupError {
    /// A setting of the builder makes no sense.
    #[error("{reason}; correct the settings of the broker")]
    Settings {
        /// The setting, and what is wrong with it.
        reason: String,
    },
    /// A server can't be connected to, and never will be in this way.
    #[error("the broker at {address} can't be used; check the address, the certificates and the credentials")]
    Connection {
        /// The address, without its password.
        address: String,
        /// The client library's error.
        #[source]
        cause: Arc<dyn Error + Send + Sync>,
    },
}

impl BrokerSetupError {
    /// An error about a setting.
    pub fn settings(reason: impl Into<String>) -> Self {
        Self::Settings { reason: reason.into() }
    }
}

/// The addresses of `list` without the user and the password that they may hold, for errors and logs.
pub fn without_password(list: &str) -> String {
    let host = |address: &str| match address.rsplit_once('@') {
        None => address.trim().to_owned(),
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{}{host}", scheme.trim_start())
        }
    };
    list.split(',').map(host).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let shown = without_password("nats://ada:s@cret@one:4222, two:4222");
        assert_eq!(shown, "nats://one:4222,two:4222");
    }
}
