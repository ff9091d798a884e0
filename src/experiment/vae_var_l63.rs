//! Preset `vae-var-l63`: Lorenz-63 by 3DVar and 4DVar and, with errors learned from the same cycles, by VAE-Var (after
//! arXiv 2405.13711, whose settings are not published: those here are DAPPER's of `sakov2012`).

use super::{CyclePreset, CycleSettings, CycledKind, sakov2012};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "vae-var-l63",
        about: "Lorenz-63, observed every 0.25 time units: 3DVar, 4DVar, VAE-3DVar and VAE-4DVar",
        settings: CycleSettings {
            methods: vec![CycledKind::FourDVar, CycledKind::VaeVar],
            windows: vec![0, 1],
            factors: vec![0.5, 1.0, 2.0],
            error_factors: vec![0.1],
            cycles: 1000,
            burn_in: 100,
            ..sakov2012::preset().settings
        },
    }
}
