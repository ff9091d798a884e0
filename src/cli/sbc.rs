//! `vi4dvar sbc`: are the methods calibrated? Ranks of the truth over many prior twins, with a figure.

use super::config::{self, Given};
use super::options::{HardwareOptions, KeepOptions, MethodOptions, RunOptions};
use super::progress::{Bar, checkpoint_of};
use super::twin::{describe_problem, describe_seeds, seeds};
use super::{output, preset, print};
use clap::{ArgMatches, Args, Command};
use serde::Serialize;
use std::path::{Path, PathBuf};
use vi4dvar::engine::Ranks;
use vi4dvar::error::Result;
use vi4dvar::experiment::{Preset, TwinSettings};
use vi4dvar::method::Method;
use vi4dvar::output::{
    check_figure, check_size, check_writable, sbc_figure, write_or_clear_figure, write_scores, write_text,
};
use vi4dvar::posterior::Family;

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    /// The methods to judge. Default: 4dvar,ensemble,vi
    #[arg(long, value_name = "NAMES", value_delimiter = ',', hide_possible_values = true)]
    methods: Vec<Method>,
    /// Prior twins with consecutive seeds, at least 2. Default: 200
    #[arg(long, value_name = "N")]
    problems: usize,
    #[command(flatten)]
    #[serde(flatten)]
    twin: TwinSettings,
    #[command(flatten)]
    #[serde(flatten)]
    settings: MethodOptions,
    #[command(flatten)]
    #[serde(flatten)]
    hardware: HardwareOptions,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
    #[command(flatten)]
    #[serde(skip)]
    run: RunOptions,
    #[command(flatten)]
    #[serde(skip)]
    keep: KeepOptions,
}

#[derive(Args)]
struct Output {
    /// The settings to start from, with prior twins; `list` shows them all. Default: isda-16-prior, or lorenz63-prior
    /// for --model lorenz63
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// The directory to write sbc.json, sbc.toml, sbc.svg and sbc.png to. Default: out/sbc-PRESET
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command)
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let given = Given::new::<Options>(flags)?;
    let Some(preset) = preset(&given, Preset::from_name("isda-16-prior")?)? else { return Ok(()) };
    let mut options = given.over(Options {
        methods: vec![Method::FourDVar, Method::Ensemble, Method::Vi(Family::default())],
        problems: 200,
        twin: preset.twin.clone(),
        settings: MethodOptions::new(&preset),
        hardware: HardwareOptions::default(),
        output: Output { preset: None, out: Path::new("out").join(format!("sbc-{}", preset.name)) },
        run: RunOptions::default(),
        keep: KeepOptions::default(),
    });
    options.twin = options.twin.completed();
    options.methods = options.settings.methods(&options.methods);
    let preset = Preset { twin: options.twin.clone(), methods: options.settings.settings(), ..preset };
    let (out, methods) = (&options.output.out, &options.methods);
    let force = options.keep.overwrites(&options.run, out);
    let seeds = seeds(preset.twin.seed, options.problems, "--problems")?;
    // Nothing is created before all of this has been found in order.
    preset.check_sbc(&seeds, methods)?;
    for samples in methods.iter().map(|method| preset.methods.samples_of(*method)) {
        check_size("trajectory", &[samples, preset.twin.times, preset.twin.sites])?;
    }
    let check = || {
        [out.join("sbc.json"), out.join("sbc.toml")].iter().try_for_each(|target| check_writable(target, force))?;
        check_figure(out, "sbc", force)
    };
    if out.exists() {
        check()?;
    }
    let engine = options.hardware.engine(&options.run, ranks)?;
    let mut new = output::NewDirectories::default();
    new.create(out)?;
    check()?;

    let settings = config::resolved("sbc", &options);
    let inputs = options.settings.inputs();
    let bar = Bar::new(&options.run, &options.keep, checkpoint_of(out), &settings, &inputs, &engine)?;
    bar.conclude(|bar| {
        let sbc = preset.sbc(&seeds, methods, &engine, bar)?;
        bar.clear();
        write_scores(out.join("sbc.json"), &sbc, force)?;
        write_text(out.join("sbc.toml"), &settings, force)?;
        write_or_clear_figure(out, "sbc", sbc_figure(&sbc).as_ref(), force)?;
        let about = format!("{}, prior twins of {}", describe_problem(&preset.twin), describe_seeds(&seeds));
        print(&format!("{about}\n{sbc}on {engine}\n{}\n", out.join("sbc.svg").display()))
    })
}
