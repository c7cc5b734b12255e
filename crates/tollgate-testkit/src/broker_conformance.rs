//! What every broker must do, as tests that run against any implementation of [`Broker`]: the promises of the trait,
//! and what the engine relies on beyond them. No broker of ours is known here; a broker brings itself and its
//! [`BrokerConfig`].
//!
//! Each check is a function of its own; [`broker_conformance_tests!`](crate::broker_conformance_tests) makes one test
//! of each. Checks use endpoints of their own, so that they can share a broker that outlives them.

#![allow(
    clippy::missing_panics_doc,
    reason = "a check says by a panic what a broker does wrong; that is its purpose"
)]

mod delivery;
mod queue;
mod receiving;
mod sending;
mod settling;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate_proto::Broker;

pub use delivery::*;
pub use receiving::*;
pub use sending::*;
pub use settling::*;

/// What the suite has to know about a broker.
#[derive(Clone, Copy, Debug)]
pub struct BrokerConfig {
    /// After which time an unsettled delivery comes again although its receiver lives: the bound up to which the broker holds
    /// it, extensions of its own included.
    pub visibility_timeout: Duration,
    /// How many messages one endpoint takes before sends are refused. `None`: more than a test would send.
    pub capacity: Option<usize>,
    /// The largest body that one envelope may hold, in bytes.
    pub envelope_bytes_max: usize,
}

/// The one list of the checks.
#[doc(hidden)]
#[macro_export]
macro_rules! with_every_broker_check {
    ($then:ident!($($before:tt)*)) => {
        $crate::$then! { $($before)*
            a_confirmed_message_is_delivered
            a_delivery_holds_the_envelope_as_it_was_sent
            an_unsettled_delivery_comes_again_with_a_higher_count
            a_delivery_that_is_worked_on_is_given_to_nobody_else_and_can_be_settled_late
            an_acknowledged_message_never_comes_again
            settling_twice_does_no_harm
            settling_after_a_redelivery_does_no_harm_to_other_messages
            a_retried_message_comes_again_and_not_before_its_delay
            a_delayed_message_does_not_come_before_its_delay
            a_dead_lettered_message_does_not_come_again
            answers_come_in_the_order_of_the_messages
            no_more_messages_come_than_were_asked_for
            a_receiver_that_waits_is_woken_by_a_send
            dropping_a_receive_loses_nothing
            concurrent_receivers_never_both_hold_one_delivery
            a_big_envelope_arrives_whole
            many_endpoints_do_not_mix
            different_messages_with_one_message_id_are_all_delivered
            a_full_queue_refuses_and_takes_again_after_an_acknowledgement
            a_queue_that_works_is_verified
        }
    };
}

/// Makes a test of each check of [`crate::broker_conformance`].
///
/// `paused` runs them on tokio's paused clock, for brokers that live in this process and keep to tokio's time;
/// `real_time` on the real one. Then come an `async fn() -> Arc<dyn Broker>` and a [`BrokerConfig`].
///
/// ```ignore
/// broker_conformance_tests!(paused, make_broker, CONFIG);
/// ```
#[macro_export]
macro_rules! broker_conformance_tests {
    (paused, $make:expr, $config:expr) => {
        $crate::with_every_broker_check!(define_broker_tests!((start_paused = true), $make, $config;));
    };
    (real_time, $make:expr, $config:expr) => {
        $crate::with_every_broker_check!(define_broker_tests!((), $make, $config;));
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! define_broker_tests {
    ($clock:tt, $make:expr, $config:expr; $($check:ident)*) => {
        $(
            #[tokio::test $clock]
            async fn $check() {
                $crate::broker_conformance::$check($make, &$config).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! run_broker_checks {
    ($make:ident, $config:ident; $($check:ident)*) => {
        $(
            let start = Instant::now();
            $check(&$make, $config).await;
            println!("{}: {:.1?}", stringify!($check), start.elapsed());
        )*
    };
}

/// Runs all checks one after the other, for brokers whose server may not be startable on a machine: the test around it says
/// so, and does not run this.
pub async fn run(make: impl AsyncFn() -> Arc<dyn Broker>, config: &BrokerConfig) {
    with_every_broker_check!(run_broker_checks!(make, config;));
}
