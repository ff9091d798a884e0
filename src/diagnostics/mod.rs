//! How good an analysis is: its error against the truth, its spread, and whether Markov chains can be trusted.

mod mcmc;
mod scores;

pub use mcmc::{bulk_ess, mean_ess, r_hat};
pub use scores::Scores;
