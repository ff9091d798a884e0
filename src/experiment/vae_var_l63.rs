//! Preset `vae-var-l63`: Lorenz-63 by 3DVar and 4DVar and, with errors learned from the same cycles, by VAE-Var (after
//! arXiv 2405.13711, whose settings are not published: those here are DAPPER's of `sakov2012`).
//!
//! Scores to expect over seeds 1 to 5 (`vi4dvar cycle --preset vae-var-l63 --backend cpu --repeat 5`), RMSE of the analysis at the
//! best factor: 3DVar 1.011 ± 0.011, VAE-3DVar 0.854 ± 0.022, 4DVar 0.472 ± 0.021, VAE-4DVar 0.467 ± 0.025.

use super::{CyclePreset, CycleSettings, CycledKind, sakov2012};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "vae-var-l63",
        about: "Lorenz-63, observed every 0.25 time units: 3DVar, 4DVar, VAE-3DVar and VAE-4DVar",
        settings: CycleSettings {
            methods: vec![CycledKind::FourDVar, CycledKind::VaeVar],
            windows: vec![0, 1],
            factors: vec![0.15, 0.25, 0.5, 1.0, 2.0],
            error_factors: vec![0.1],
            cycles: 300,
            burn_in: 60,
            ..sakov2012::preset().settings
        },
    }
}
