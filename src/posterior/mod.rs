//! The families q_theta, and how the engine's moments pull back to a gradient with respect to theta.

mod elbo;
mod mean_field;

pub use elbo::{Elbo, log_normalizer, log_observation_normalizer};
pub use mean_field::MeanField;
