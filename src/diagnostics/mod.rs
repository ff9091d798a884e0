//! How good an analysis is: its error against the truth, and its spread.

mod scores;

pub use scores::Scores;
