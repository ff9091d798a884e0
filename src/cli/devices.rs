//! `vi4dvar devices`: the adapters, and which one would be used.

use super::config::Given;
use super::options::{HardwareOptions, RunOptions};
use super::print;
use clap::{ArgMatches, Args, Command};
use std::fmt::Write;
use vi4dvar::engine::{Engine, Ranks, adapters};
use vi4dvar::error::Result;

#[derive(Args, Default)]
struct Options {
    #[command(flatten)]
    hardware: HardwareOptions,
    #[command(flatten)]
    run: RunOptions,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command)
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let Options { hardware, .. } = Given::new::<Options>(flags)?.over(Options::default());
    let mut text = String::new();
    for adapter in adapters() {
        let f64 = if adapter.f64 { "f32, f64" } else { "f32" };
        let mib = adapter.largest_binding >> 20;
        writeln!(
            text,
            "{}\n    {}, {}, {}; {f64}; bindings up to {mib} MiB\n    kernel of 40 sites by rule of thumb: {}",
            adapter.name, adapter.kind, adapter.backend, adapter.driver, adapter.rule_of_thumb
        )
        .expect("strings take everything");
        for (problem, kernel) in adapter.calibrated() {
            writeln!(text, "    calibrated, {problem}: {kernel}").expect("strings take everything");
        }
    }
    if text.is_empty() {
        text.push_str("no GPU adapter\n");
    }
    print(&text)?;
    // The list stays on the screen when what is asked for is not in it.
    let engine = Engine::over(&hardware.settings(), ranks)?;
    print(&format!("{engine}\n    would be used\n"))
}
