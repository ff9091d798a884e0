//! stub of the tour
pub mod engine;
pub mod error;
pub mod method;
pub mod model;
mod netcdf;
pub mod optimizer;
pub mod output;
pub mod posterior;
pub mod problem;
pub mod random;
