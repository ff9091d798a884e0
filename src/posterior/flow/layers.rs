//! What all kinds of layers have in common: their parameters, and the way through them and back.

use super::FlowSettings;
use super::coupling::{Couplings, Transform};
use super::planar::Planar;
use crate::posterior::Family;
use burn_tensor::Tensor;

/// A matrix of parameters, and how it starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The deviation of its numbers at the start; 0 for a matrix of zeros.
    pub std: f64,
    /// What an optimiser's step is counted in.
    pub unit: f64,
}

/// Rows behind the layers, or in front of them.
pub(super) struct Mapped {
    /// `[rows, n]`
    pub rows: Tensor<2>,
    /// log |det dz/deps| there, whichever way was gone: `[rows, 1]`.
    pub log_det: Tensor<2>,
}

/// The layers of a flow of one kind. Parameters are handed over as the tensors of [`Self::matrices`], in that order.
#[derive(Clone, Debug)]
pub(super) enum Layers {
    Couplings(Couplings),
    Planar(Planar),
}

impl Layers {
    /// Of `n` sites; nothing if the family is no flow.
    pub fn new(family: Family, settings: &FlowSettings, n: usize) -> Option<Self> {
        match family {
            Family::RealNvp => Some(Self::Couplings(Couplings::new(Transform::Affine, settings, n))),
            Family::Spline => Some(Self::Couplings(Couplings::new(Transform::Spline, settings, n))),
            Family::Planar => Some(Self::Planar(Planar::new(settings.layers, n))),
            _ => None,
        }
    }

    /// The parameters, layer by layer.
    pub fn matrices(&self) -> Vec<Matrix> {
        match self {
            Self::Couplings(couplings) => couplings.matrices(),
            Self::Planar(planar) => planar.matrices(),
        }
    }

    /// Moves parameters from where [`Self::matrices`] puts them to where all layers are the identity.
    pub fn make_identity(&self, parameters: &mut [f64]) {
        // Couplings start with an output of zeros.
        if let Self::Planar(planar) = self {
            planar.make_identity(parameters);
        }
    }

    /// From eps to z.
    pub fn forward(&self, parameters: &[Tensor<2>], eps: Tensor<2>) -> Mapped {
        match self {
            Self::Couplings(couplings) => couplings.forward(parameters, eps),
            Self::Planar(planar) => planar.forward(parameters, eps),
        }
    }

    /// From z to eps.
    pub fn inverse(&self, parameters: &[Tensor<2>], z: Tensor<2>) -> Mapped {
        match self {
            Self::Couplings(couplings) => couplings.inverse(parameters, z),
            Self::Planar(planar) => planar.inverse(parameters, z),
        }
    }
}
