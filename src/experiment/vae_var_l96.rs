//! Preset `vae-var-l96`: Lorenz-96 by 3DVar and 4DVar and, with errors learned from the same cycles, by VAE-Var.

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
            factors: vec![0.5, 1.0, 2.0],
            error_factors: vec![0.1],
            cycles: 300,
            burn_in: 100,
            ..CycleSettings::default()
        },
    }
}
