//! The commands of `tollgate-verify`, a file each.

pub mod explore;
pub mod gallery;
pub mod mutants;
pub mod simulate;
