//! Preset `lorenz63-prior`: `lorenz63` with the truth drawn from the prior, which calibration asks for.

use super::{Preset, TwinKind, TwinSettings, lorenz63};

pub(super) fn preset() -> Preset {
    let classic = lorenz63::preset();
    Preset {
        name: "lorenz63-prior",
        about: "Lorenz-63 with the truth drawn from the prior: for calibration",
        twin: TwinSettings { kind: TwinKind::Prior, ..classic.twin },
        methods: classic.methods,
    }
}
