//! `vi4dvar cycle`: assimilation in many windows, one after the other, with its scores, errors by cycle and figures.

use super::config::{self, Given};
use super::learned::{self, LearnedOptions};
use super::options::{HardwareOptions, KeepOptions, RunOptions};
use super::progress::{Bar, checkpoint_of};
use super::twin::{describe_seeds, seeds};
use super::{cycle_preset, output, print};
use clap::{ArgMatches, Args, Command};
use serde::Serialize;
use std::path::{Path, PathBuf};
use vi4dvar::engine::Ranks;
use vi4dvar::error::Result;
use vi4dvar::experiment::{CyclePreset, CycleSettings};
use vi4dvar::output::{
    check_cycles, check_figure, check_writable, cycle_figures, write_cycle_scores, write_cycles, write_or_clear_figure,
    write_text,
};

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    /// Experiments with consecutive seeds, of which the table shows mean and standard error. Default: 10
    #[arg(long, value_name = "N")]
    repeat: usize,
    #[command(flatten)]
    #[serde(flatten)]
    settings: CycleSettings,
    #[command(flatten)]
    #[serde(flatten)]
    learned: LearnedOptions,
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
    /// The settings to start from; `list` shows them all. Default: sakov2008, or sakov2012 for --model
    /// lorenz63
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// The directory to write cycles.nc, scores.json, cycle.toml and figures to. Default: out/cycle-PRESET
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The figures; the second where parameters are estimated, the third where there are several windows or factors.
const FIGURES: [&str; 3] = ["cycles", "parameters", "windows"];

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command)
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let given = Given::new::<Options>(flags)?;
    let Some(preset) = cycle_preset(&given, CyclePreset::from_name("sakov2008")?)? else { return Ok(()) };
    let mut options = given.over(Options {
        repeat: 10,
        settings: preset.settings,
        learned: LearnedOptions::default(),
        hardware: HardwareOptions::default(),
        output: Output { preset: None, out: Path::new("out").join(format!("cycle-{}", preset.name)) },
        run: RunOptions::default(),
        keep: KeepOptions::default(),
    });
    options.settings = options.settings.completed();
    let (out, settings) = (&options.output.out, &options.settings);
    let force = options.keep.overwrites(&options.run, out);
    let seeds = seeds(settings.seed, options.repeat, "--repeat")?;
    // Nothing is created before all of this has been found in order.
    settings.check()?;
    check_cycles(settings, seeds.len())?;
    options.learned.check(settings)?;
    let trained = options.learned.files(settings, out);
    let files = ["cycles.nc", "scores.json", "cycle.toml"].map(|name| out.join(name));
    let check = || {
        files.iter().chain(&trained).try_for_each(|target| check_writable(target, force))?;
        FIGURES.iter().try_for_each(|name| check_figure(out, name, force))
    };
    if out.exists() {
        check()?;
    }
    let engine = options.hardware.engine(&options.run, ranks)?;
    let mut new = output::NewDirectories::default();
    new.create(out)?;
    check()?;

    let resolved = config::resolved("cycle", &options);
    let inputs = options.learned.inputs();
    let bar = Bar::new(&options.run, &options.keep, checkpoint_of(out), &resolved, &inputs, &engine)?;
    bar.conclude(|bar| {
    let learned = options.learned.learn(settings, &engine, bar)?;
    let attributes = output::attributes("cycle", &resolved, Some(&engine));
    // What took longest is kept, whatever comes next.
    for own in &learned {
        learned::write(own, out, &attributes, settings.seed, force)?;
    }
    let mut vaes = options.learned.read()?;
    vaes.extend(learned.iter().map(|own| own.vae.clone()));
    let cycles = settings.run_learned(&seeds, &vaes, &engine, bar)?;
    bar.clear();

    let [errors, scores, configuration] = &files;
    write_cycles(errors, &cycles, &attributes, force)?;
    write_cycle_scores(scores, &cycles, force)?;
    write_text(configuration, &resolved, force)?;
    let figures = cycle_figures(&cycles);
    for name in FIGURES {
        write_or_clear_figure(out, name, figures.iter().find(|f| f.name == name), force)?;
    }
    let CycleSettings { model, sites, burn_in, .. } = settings;
    let (model, interval, scored) = (model.name(), settings.interval(), settings.cycles);
    let mut notes = cycles.notes();
    let overlaps = settings.windows.iter().any(|window| *window > settings.shift);
    if settings.model_error_std.is_some_and(|std| std > 0.0) && overlaps {
        let text = "windows overlap: what one learns of the model's errors the next one does not know (see --shift)";
        notes.push(text.into());
    }
    let training: String = learned.iter().map(learned::summary).collect();
    let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    print(&format!(
        "{model}, {sites} sites observed every {interval} time units, {scored} cycles after a burn-in of {burn_in}, {}\n\
         {training}{cycles}{notes}on {}\n{}\n",
        describe_seeds(&seeds),
        engine,
        out.join("cycles.svg").display()
    ))
    })
}
