//! The families q_theta, and how the engine's moments pull back to a gradient with respect to theta.

mod mean_field;

pub use mean_field::{Elbo, MeanField, log_normalizer};
