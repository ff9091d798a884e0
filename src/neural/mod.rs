//! Networks and their training, on burn's tensors on the CPU, in f32; their parameters are one row of f64 on the host.

#[cfg(feature = "neural")]
mod convolution;
#[cfg(feature = "neural")]
mod dense;
mod layers;
#[cfg(feature = "neural")]
mod tensors;
mod training;

#[cfg(feature = "neural")]
pub(crate) use convolution::Convolution;
#[cfg(feature = "neural")]
pub(crate) use dense::{Activation, Dense};
pub use layers::Architecture;
#[cfg(feature = "neural")]
pub(crate) use layers::Layers;
#[cfg(feature = "neural")]
pub(crate) use tensors::{Matrix, gradients, initial, leaves, numbers, tensor, tensors, units};
#[cfg(feature = "neural")]
pub(crate) use training::{Learner, Watch, train};
pub use training::{TrainingHistory, TrainingSettings};
