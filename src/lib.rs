//! stub of the tour
pub mod diagnostics;
pub mod engine;
pub mod error;
pub mod experiment;
pub mod method;
pub mod model;
pub mod problem;
pub mod random;
