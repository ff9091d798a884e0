//! Preset `vae-var-l96`: Lorenz-96 by 3DVar and 4DVar and, with errors learned from the same cycles, by VAE-Var.
//!
//! Scores to expect over seeds 1 to 5 (`vi4dvar cycle --preset vae-var-l96 --backend cpu --repeat 5`), RMSE of the analysis at the
//! best factor: 3DVar 0.916 ± 0.009, VAE-3DVar 0.864 ± 0.009, 4DVar 0.653 ± 0.008, VAE-4DVar 0.623 ± 0.009.

use super::{CyclePreset, CycleSettings, CycledKind};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "vae-var-l96",
        about: "40 sites, half of them observed every 0.1 time units: 3DVar, 4DVar, VAE-3DVar and VAE-4DVar",
        settings: CycleSettings {
            steps_per_time: 2,
            drop: 0.5,
            methods: vec![CycledKind::FourDVar, CycledKind::VaeVar],
            windows: vec![0, 1],
            factors: vec![0.5, 1.0, 1.5, 2.0, 3.0],
            error_samples: 10_000,
            error_factors: vec![0.1],
            cycles: 200,
            burn_in: 60,
            ..CycleSettings::default()
        },
    }
}
