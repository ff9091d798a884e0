//! Twin experiments and published presets, one file each.

mod twin;

pub use twin::{TwinKind, TwinSettings, simulate, simulate_set};
