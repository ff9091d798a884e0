//! What the first rank asks of the others.

use crate::engine::operation::Operation;
use crate::engine::resident::Numbers;
use crate::engine::{AdamStep, Draw, EngineSettings, Keep, Terms};
use crate::problem::Problem;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// A request. Engines, problem sets and resident members go by the numbers that the first rank gave them.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make an engine. Answer: its hardware.
    Open { engine: u64, settings: EngineSettings },
    /// Load a problem set on this variant of the kernels.
    Load { engine: u64, problem: u64, set: Box<Problem>, kernel: String },
    /// Run an operation that says something of each row, on the rank's share of the rows. Parts: the states of given and
    /// listed members; their list; the operation's input. Answer: for each rank whether it succeeded, in which case its rows
    /// follow.
    Rows { problem: u64, operation: Operation, source: RowSource, count: usize },
    /// Answer: the moments of the share.
    Moments { problem: u64, draw: Draw, terms: Terms },
    /// Answer: what the share has to offer.
    Select { problem: u64, draw: Draw, criterion: Terms, keep: Keep },
    /// Keep members on the device. Parts: their states, backgrounds and running means; their list.
    Settle { problem: u64, members: u64, amplitude: f64, units: Array2<f64> },
    /// Move resident members.
    Adam { problem: u64, members: u64, steps: Vec<AdamStep>, terms: Terms },
    /// Answer: as of rows, with J_b, J_o, whether the member diverged, and the norm of its gradient.
    Inspect { problem: u64, members: u64, terms: Terms },
    /// Answer: as of rows.
    Numbers { problem: u64, members: u64, kind: Numbers },
    /// Keep some of the resident members alone. Part: their places.
    Gather { problem: u64, members: u64 },
    /// Drop an engine, a problem set or resident members.
    Forget(u64),
    /// There will be no more.
    End,
}

/// Where rows come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RowSource {
    Given,
    Listed { amplitude: f64 },
    Drawn(Box<Draw>),
}
