//! Options that several subcommands share.

use clap::{ArgAction, Args};
use serde::Serialize;
use std::path::PathBuf;
use vi4dvar::engine::{Backend, Engine, EngineSettings, Hardware, Precision};
use vi4dvar::error::Result;

/// Where and how to compute.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Hardware")]
pub(super) struct HardwareOptions {
    /// Where to compute: auto (a real GPU, else the CPU), gpu, cpu. Default: auto
    #[arg(long, value_name = "BACKEND", value_parser = backend)]
    pub backend: Backend,
    /// Part of the name of the adapter to use. Default: the best one
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The number type: f32, f64. Default: f32
    #[arg(long, value_name = "TYPE", value_parser = precision)]
    pub precision: Precision,
    /// Threads of the CPU engine. Default: all cores
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Most memory that a batch in flight may take, in MiB. Default: 1024
    #[arg(long, value_name = "MIB")]
    pub memory: u64,
}

impl Default for HardwareOptions {
    fn default() -> Self {
        let EngineSettings { backend, adapter, precision, threads, memory_mib: memory } = EngineSettings::default();
        Self { backend, adapter, precision, threads, memory }
    }
}

impl HardwareOptions {
    /// What an engine is made from.
    pub(super) fn settings(&self) -> EngineSettings {
        EngineSettings {
            backend: self.backend,
            adapter: self.adapter.clone(),
            precision: self.precision,
            threads: self.threads,
            memory_mib: self.memory,
        }
    }

    /// The engine asked for; a software rasteriser is announced.
    pub(super) fn engine(&self, run: &RunOptions) -> Result<Engine> {
        let engine = Engine::new(&self.settings())?;
        if !run.quiet {
            eprintln!("on {}", engine.hardware());
        }
        announce(engine.hardware());
        Ok(engine)
    }
}

/// Says so where the adapter is a software rasteriser, even to those who asked for quiet.
fn announce(hardware: &Hardware) {
    if hardware.software {
        eprintln!("note: {} is a software rasteriser, no faster than --backend cpu", hardware.adapter);
    }
}

/// How to behave while running. Not part of the saved settings.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Running")]
pub(super) struct RunOptions {
    /// A TOML file with flags as keys (`sites = 40`); flags on the command line win
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Write over existing results. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub force: bool,
    /// No progress and no notes. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub quiet: bool,
}

fn backend(name: &str) -> std::result::Result<Backend, String> {
    match name {
        "auto" => Ok(Backend::Auto),
        "gpu" => Ok(Backend::Gpu),
        "cpu" => Ok(Backend::Cpu),
        _ => Err("expected one of auto, gpu, cpu".into()),
    }
}

fn precision(name: &str) -> std::result::Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "f64" => Ok(Precision::F64),
        _ => Err("expected one of f32, f64".into()),
    }
}
