//! What a store or a broker is tested with: conformance suites that check the promises of its trait, and wrappers that
//! inject faults and count calls. It may be used by tests only, knows the traits of `tollgate-core` and no
//! implementation of them.

pub mod broker_conformance;
pub mod store_conformance;
