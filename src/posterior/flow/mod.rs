//! Normalizing flows: q is the image of a standard normal under layers whose determinants are known.
//!
//! x = m + S z, z = f_L(... f_1(eps)), log q(x) = log N(eps) - sum_l log |det f_l'| - log |det S|
//!
//! N(m, S S') is given and stays as it is; the layers, all of them the identity at the start, are what is fitted. So a flow
//! starts as that Gaussian and can only gain on it. The networks of couplings are f32, run and differentiated by burn's
//! tensors; what they say is taken as it is, and all else is f64. log q of a draw and log q found from its state alone
//! differ by what f32 networks make of one input in batches of different size, about 1e-6.

#[cfg(feature = "neural")]
mod coupling;
#[cfg(feature = "neural")]
mod layers;
#[cfg(feature = "neural")]
mod map;
#[cfg(feature = "neural")]
mod planar;
#[cfg(feature = "neural")]
mod spline;

#[cfg(feature = "neural")]
pub use map::Flow;

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The layers of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowSettings {
    /// Layers: couplings, each of which moves half of the sites, or planar maps. Default: 8.
    pub layers: usize,
    /// Width of the hidden layers of a coupling's network. Default: 64.
    pub width: usize,
    /// Hidden layers of a coupling's network. Default: 2.
    pub hidden: usize,
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self { layers: 8, width: 64, hidden: 2 }
    }
}

impl FlowSettings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        for (flag, value, most) in
            [("flow-layers", self.layers, 1000), ("flow-width", self.width, 4096), ("flow-hidden", self.hidden, 16)]
        {
            if !(1..=most).contains(&value) {
                let expected = format!("1 to {most}");
                return Err(Error::invalid(flag, expected, value.to_string(), "correct the setting, or leave it out"));
            }
        }
        Ok(())
    }
}
