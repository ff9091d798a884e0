//! The observation operator H: a point-wise function h, then the average over blocks of `block_size` sites.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The point-wise function h of the observation operator; every one has a derivative everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointFunction {
    /// h(x) = x
    Identity,
    /// h(x) = x^2, the nonlinearity of the VI-4DVAR case study.
    #[default]
    Square,
    /// h(x) = x^3
    Cubic,
    /// h(x) = log(1 + e^x)
    Softplus,
}

impl PointFunction {
    /// All functions, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Square, Self::Cubic, Self::Softplus];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Square => "square",
            Self::Cubic => "cubic",
            Self::Softplus => "softplus",
        }
    }

    /// The function of that name.
    ///
    /// # Errors
    /// An unknown name, with the list of known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|f| f.name()).collect();
            Error::invalid(
                "observation operator",
                format!("one of {}", known.join(", ")),
                format!("{name:?}"),
                "choose a known operator",
            )
        })
    }

    /// h(x).
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            Self::Square => x * x,
            Self::Cubic => x * x * x,
            Self::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        }
    }

    /// h'(x).
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Self::Identity => 1.0,
            Self::Square => 2.0 * x,
            Self::Cubic => 3.0 * x * x,
            Self::Softplus => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

/// H(x)_j = mean of h(x_i) over the sites i of block j. A block of one site is a projection; the mask is the
/// observations' NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObservationOperator {
    /// h.
    pub function: PointFunction,
    /// Sites averaged into one observation; divides the number of sites.
    pub block_size: usize,
}

impl ObservationOperator {
    /// H(x): `[sites / block_size]` from `x: [sites]`.
    ///
    /// # Panics
    /// Where `block_size` is 0, which [`Problem::check`](super::Problem::check) refuses.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        x.chunks(self.block_size)
            .map(|block| block.iter().map(|&x| self.function.value(x)).sum::<f64>() / block.len() as f64)
            .collect()
    }

    /// The Jacobian's product H'(x) dx: `[sites / block_size]` from `x, dx: [sites]`.
    ///
    /// # Panics
    /// As [`Self::apply`].
    pub fn tangent(&self, x: &[f64], dx: &[f64]) -> Vec<f64> {
        x.chunks(self.block_size)
            .zip(dx.chunks(self.block_size))
            .map(|(x, dx)| {
                x.iter().zip(dx).map(|(&x, dx)| self.function.derivative(x) * dx).sum::<f64>() / x.len() as f64
            })
            .collect()
    }

    /// Refuses a block size that does not divide the sites.
    ///
    /// # Errors
    /// `block_size` is zero or no divisor.
    pub fn check(&self, sites: usize) -> Result<()> {
        if self.block_size == 0 || !sites.is_multiple_of(self.block_size) {
            return Err(Error::invalid(
                "block_size",
                format!("a divisor of the {sites} sites"),
                self.block_size.to_string(),
                "average over blocks of equal size",
            ));
        }
        Ok(())
    }
}
