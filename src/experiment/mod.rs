//! Twin experiments and published presets, one file each.

mod background;
mod isda_16;
mod table;
mod twin;

pub use background::background;
pub use table::{ScoreRow, ScoreTable};
pub use twin::{TwinKind, TwinSettings, simulate, simulate_set};
