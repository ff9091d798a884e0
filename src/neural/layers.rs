//! The ways in which a network sees the sites.

use serde::{Deserialize, Serialize};
#[cfg(feature = "neural")]
use {
    super::{Convolution, Dense, Matrix},
    burn_tensor::Tensor,
};

/// The layers of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// Circular convolutions over the sites: for a ring of equal sites, of any number.
    Convolution,
    /// Every site with every other.
    Dense,
}

impl Architecture {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Dense => "dense",
        }
    }
}

/// A network's shape, of either architecture.
#[cfg(feature = "neural")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layers {
    Convolution(Convolution),
    Dense(Dense),
}

#[cfg(feature = "neural")]
impl Layers {
    /// Weights and bias of each layer.
    pub fn matrices(&self) -> Vec<Matrix> {
        match self {
            Self::Convolution(net) => net.matrices(),
            Self::Dense(net) => net.matrices(),
        }
    }

    /// Inputs to outputs: `[rows, sites * inputs]` to `[rows, sites * outputs]`, channels fastest. `weights`: the tensors of
    /// [`Self::matrices`].
    pub fn evaluate(&self, weights: &[Tensor<2>], input: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Convolution(net) => net.evaluate(weights, input),
            Self::Dense(net) => net.evaluate(weights, input),
        }
    }
}
