//! `vi4dvar simulate`: make a twin problem and write its file.

use super::config::{self, Given};
use super::options::RunOptions;
use super::{output, preset};
use clap::{ArgMatches, Args, Command};
use serde::Serialize;
use std::path::PathBuf;
use vi4dvar::engine::Ranks;
use vi4dvar::error::Result;
use vi4dvar::experiment::{self, Preset, TwinSettings};

#[derive(Args, Serialize)]
struct Options {
    #[command(flatten)]
    #[serde(flatten)]
    twin: TwinSettings,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
    #[command(flatten)]
    #[serde(skip)]
    run: RunOptions,
}

#[derive(Args)]
struct Output {
    /// The settings to start from; `list` shows them all. Default: isda-16, or lorenz63 for --model
    /// lorenz63
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// The problem file to write. Default: problem.nc
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command)
}

pub(super) fn run(flags: &ArgMatches, _: &Ranks) -> Result<()> {
    let given = Given::new::<Options>(flags)?;
    let Some(preset) = preset(&given, Preset::default())? else { return Ok(()) };
    let Options { twin, output: Output { out, .. }, run } = given.over(Options {
        twin: preset.twin,
        output: Output { preset: None, out: "problem.nc".into() },
        run: RunOptions::default(),
    });
    let twin = twin.completed();
    let settings = config::resolved("simulate", &twin);
    output::check(&out, &[], run.force)?;
    let problem = experiment::simulate(&twin)?;
    problem.write(&out, &output::attributes("simulate", &settings, None), run.force)?;
    output::save_settings(&out, &settings, run.force)
}
