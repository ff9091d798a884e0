//! `vi4dvar twin`: the whole case study, from a seed to a table of scores, figures and a report.

use super::config::{self, Given};
use super::options::{HardwareOptions, KeepOptions, MethodOptions, RunOptions};
use super::progress::{Bar, checkpoint_of};
use super::{output, preset, print};
use clap::{ArgMatches, Args, Command};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use vi4dvar::engine::{Engine, Ranks};
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::{Outcome, Preset, TwinSettings};
use vi4dvar::method::Method;
use vi4dvar::output::{
    MethodReport, Report, Table, check_figures, check_size, check_writable, figures, hardware_facts, problem_facts,
    write_analysis, write_figures, write_report, write_scores, write_text, write_timings,
};

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    /// The methods to run. Default: prior,4dvar,abc,ensemble,vi,reference
    #[arg(long, value_name = "NAMES", value_delimiter = ',', hide_possible_values = true)]
    methods: Vec<Method>,
    /// Twins with consecutive seeds; the table shows their mean and its standard error, files and figures the first of
    /// them. Default: 1
    #[arg(long, value_name = "N")]
    repeat: usize,
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
    /// The settings to start from; `list` shows them all. Default: isda-16, or lorenz63 for --model
    /// lorenz63
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// The directory to write to. Default: out/PRESET
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Most twins of one run.
const MOST_TWINS: usize = 100_000;

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command)
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let given = Given::new::<Options>(flags)?;
    let Some(preset) = preset(&given, Preset::default())? else { return Ok(()) };
    let mut options = given.over(Options {
        methods: Method::CASE_STUDY.to_vec(),
        repeat: 1,
        twin: preset.twin.clone(),
        settings: MethodOptions::new(&preset),
        hardware: HardwareOptions::default(),
        output: Output { preset: None, out: Path::new("out").join(preset.name) },
        run: RunOptions::default(),
        keep: KeepOptions::default(),
    });
    options.twin = options.twin.completed();
    // The settings that are saved name the families among the methods.
    options.methods = options.settings.methods(&options.methods);
    let changed = TwinSettings { seed: options.twin.seed, ..preset.twin.clone() } != options.twin;
    let preset = Preset { twin: options.twin.clone(), methods: options.settings.settings(), ..preset };
    let (out, methods) = (&options.output.out, &options.methods);
    let force = options.keep.overwrites(&options.run, out);
    let seeds = seeds(preset.twin.seed, options.repeat, "--repeat")?;
    let files: Vec<String> = methods.iter().map(|method| file_of(*method)).collect();
    let others = ["scores.json", "timings.json", "twin.toml", "report.html"];
    let names = ["problem.nc"].into_iter().chain(files.iter().map(String::as_str)).chain(others);
    let targets: Vec<PathBuf> = names.map(|name| out.join(name)).collect();
    // Nothing is created before all of this has been found in order.
    for target in targets.iter().filter(|t| t.exists()) {
        check_writable(target, force)?;
    }
    check_figures(out.join("figures"), force)?;
    for samples in methods.iter().map(|method| preset.methods.samples_of(*method)) {
        check_size("trajectory", &[samples, preset.twin.times, preset.twin.sites])?;
    }
    methods.iter().try_for_each(|method| preset.methods.check(*method))?;
    preset.twin.check()?;
    let engine = options.hardware.engine(&options.run, ranks)?;
    let mut new = output::NewDirectories::default();
    new.create(out)?;
    for target in &targets {
        check_writable(target, force)?;
    }

    let settings = config::resolved("twin", &options);
    let inputs = options.settings.inputs();
    let bar = Bar::new(&options.run, &options.keep, checkpoint_of(out), &settings, &inputs, &engine)?;
    bar.conclude(|bar| {
        let outcome = preset.run(&seeds, methods, &engine, bar)?;
        bar.clear();
        let about = describe(&preset.twin, &seeds, outcome.problem.assimilated_count(0));
        write(&options, &preset, changed, &about, &settings, &engine, &outcome, force)?;
        let mut text = format!("{about}\n{}\n", outcome.table);
        if let [_] = seeds[..] {
            for analysis in &outcome.analyses {
                writeln!(text, "{}: {}", analysis.method, analysis.summary).expect("strings take everything");
            }
        }
        let report = out.join("report.html");
        writeln!(text, "on {engine}\n{}", report.display()).expect("strings take everything");
        print(&text)
    })
}

/// Every file of the run.
#[expect(clippy::too_many_arguments, reason = "all that a run knows goes into its files")]
fn write(
    options: &Options,
    preset: &Preset,
    changed: bool,
    about: &str,
    settings: &str,
    engine: &Engine,
    outcome: &Outcome,
    force: bool,
) -> Result<()> {
    let Outcome { problem, analyses, table } = outcome;
    let (out, methods) = (&options.output.out, &options.methods);
    if force {
        remove_others(out, methods)?;
    }
    problem.write(out.join("problem.nc"), &output::attributes("twin", settings, None), force)?;
    for (method, analysis) in methods.iter().zip(analyses) {
        let attributes = output::analysis_attributes("twin", settings, engine, problem, analysis);
        write_analysis(out.join(file_of(*method)), problem, analysis, &attributes, force)?;
    }
    let figures = figures(problem, analyses, table)?;
    write_figures(out.join("figures"), &figures, force)?;
    write_scores(out.join("scores.json"), table, force)?;
    write_timings(out.join("timings.json"), table, force)?;
    write_text(out.join("twin.toml"), settings, force)?;
    let report = Report {
        title: format!("Twin experiment {}", preset.name),
        about: {
            let whose = if changed { "its settings changed" } else { preset.about };
            let several = format!(" Problem, notes and single figures are those of seed {}.", options.twin.seed);
            format!("Preset {}, {whose}. {about}.{}", preset.name, if options.repeat > 1 { &several } else { "" })
        },
        command: format!("vi4dvar twin --config {}", out.join("twin.toml").display()),
        problem: problem_facts(problem),
        hardware: hardware_facts(engine),
        settings: settings.into(),
        methods: analyses.iter().zip(&table.methods).map(|(a, m)| MethodReport::of(a, m.seconds)).collect(),
        tables: Table::scores(table),
        figures,
    };
    write_report(out.join("report.html"), &report, force)
}

/// The file of a method's analysis.
fn file_of(method: Method) -> String {
    format!("{}.nc", method.name())
}

/// Removes the analyses of methods that this run has not, so that a directory holds one experiment.
fn remove_others(out: &Path, methods: &[Method]) -> Result<()> {
    for method in Method::ALL.iter().filter(|method| !methods.contains(method)) {
        let file = out.join(file_of(*method));
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Write { path: file, reason: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// As many consecutive seeds as a flag asks for.
pub(super) fn seeds(first: u64, count: usize, flag: &str) -> Result<Vec<u64>> {
    if !(1..=MOST_TWINS).contains(&count) {
        let expected = format!("1 to {MOST_TWINS}");
        return Err(Error::invalid(flag, expected, count.to_string(), format!("change {flag}")));
    }
    let Some(last) = first.checked_add(count as u64 - 1) else {
        let found = format!("{count} twins from seed {first}");
        return Err(Error::invalid(
            "--seed",
            "consecutive seeds below 2^64",
            found,
            format!("change {flag} or --seed"),
        ));
    };
    Ok((first..=last).collect())
}

/// The problem in a line.
pub(super) fn describe_problem(twin: &TwinSettings) -> String {
    let TwinSettings { model, sites, times, assimilated_times, operator, .. } = twin;
    let (model, operator) = (model.name(), operator.name());
    format!("{model}, {sites} sites, {assimilated_times} of {times} times assimilated, operator {operator}")
}

/// The line above the table.
fn describe(twin: &TwinSettings, seeds: &[u64], observations: usize) -> String {
    let head = describe_problem(twin);
    match seeds {
        [seed] => format!("{head}, {observations} observations, seed {seed}"),
        _ => format!("{head}, mean over the twins of {}", describe_seeds(seeds)),
    }
}

/// Consecutive seeds, in words.
pub(super) fn describe_seeds(seeds: &[u64]) -> String {
    match seeds {
        [seed] => format!("seed {seed}"),
        _ => format!("seeds {} to {}", seeds[0], seeds[seeds.len() - 1]),
    }
}
