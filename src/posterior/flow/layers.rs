//! What all kinds of layers have in common: their parameters, the way through them and back, and the derivatives of both.

use super::FlowSettings;
use super::coupling::{self, Couplings};
use super::planar::{self, Planar};
use crate::neural::Matrix;
use crate::posterior::Family;
use ndarray::{Array1, Array2};

/// Rows at an end of the layers.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    /// `[rows, n]`
    pub rows: Array2<f64>,
    /// log |det dz/deps| there, whichever way was gone: `[rows]`.
    pub log_det: Array1<f64>,
}

impl Mapped {
    /// Where the way begins.
    pub fn start(rows: Array2<f64>) -> Self {
        Self { log_det: Array1::zeros(rows.nrows()), rows }
    }
}

/// The layers of a flow of one kind.
#[derive(Clone, Debug)]
pub(super) enum Layers {
    Couplings(Couplings),
    Planar(Planar),
}

/// The layers with the parameters of one problem, ready for rows of any number.
pub(super) enum Ready<'a> {
    Couplings(coupling::Ready<'a>),
    Planar(planar::Ready),
}

/// A way from eps through the layers, with what the way back needs.
pub(super) struct Tape {
    pub z: Mapped,
    /// The rows before each layer: `[layers][rows, n]`. No more than that: networks are run again on the way back.
    pub before: Vec<Array2<f64>>,
    /// d log q/dz behind the layers, q taken as it is, where it was asked for: `[rows, n]`.
    pub score: Option<Array2<f64>>,
}

impl Layers {
    /// Of `n` sites; nothing if the family is no flow.
    pub fn new(family: Family, settings: &FlowSettings, n: usize) -> Option<Self> {
        match family {
            Family::RealNvp => Some(Self::Couplings(Couplings::new(coupling::Transform::Affine, settings, n))),
            Family::Spline => Some(Self::Couplings(Couplings::new(coupling::Transform::Spline, settings, n))),
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
        // Couplings start with networks whose output is zero.
        if let Self::Planar(planar) = self {
            planar.make_identity(parameters);
        }
    }

    pub fn ready(&self, parameters: &[f64]) -> Ready<'_> {
        match self {
            Self::Couplings(couplings) => Ready::Couplings(couplings.ready(parameters)),
            Self::Planar(planar) => Ready::Planar(planar.ready(parameters)),
        }
    }
}

impl Ready<'_> {
    /// From eps to z.
    pub fn forward(&self, eps: Array2<f64>) -> Mapped {
        match self {
            Self::Couplings(layers) => layers.forward(eps),
            Self::Planar(layers) => layers.forward(eps),
        }
    }

    /// From z to eps.
    pub fn inverse(&self, z: Array2<f64>) -> Mapped {
        match self {
            Self::Couplings(layers) => layers.inverse(z),
            Self::Planar(layers) => layers.inverse(z),
        }
    }

    /// From eps to z, with what [`Self::pull_back`] needs and the score of the rows if asked for.
    ///
    /// From layer to layer, y = f(x): the gradient of log q(y) is f'^-T times that of log q(x) - log |det f'(x)| (Vaitl et
    /// al. 2024, "Fast and unified path gradient estimators for normalizing flows").
    pub fn record(&self, eps: Array2<f64>, scored: bool) -> Tape {
        match self {
            Self::Couplings(layers) => layers.record(eps, scored),
            Self::Planar(layers) => layers.record(eps, scored),
        }
    }

    /// The gradient with respect to the parameters of what has the gradients `by_z` with respect to z, `[rows, n]`, and
    /// `by_log_det` with respect to log |det|, `[rows]`, from the rows before each layer.
    pub fn pull_back(&self, before: &[Array2<f64>], by_z: Array2<f64>, by_log_det: &Array1<f64>) -> Vec<f64> {
        match self {
            Self::Couplings(layers) => layers.pull_back(before, by_z, by_log_det),
            Self::Planar(layers) => layers.pull_back(before, by_z, by_log_det),
        }
    }
}
