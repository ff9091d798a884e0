//! `vi4dvar twin`: the whole case study, from a seed to a table of scores and files.

use super::config::{self, Given};
use super::options::{HardwareOptions, MethodOptions, RunOptions};
use super::progress::Bar;
use super::{output, preset, print};
use clap::{ArgMatches, Args, Command};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::{Outcome, Preset, TwinSettings, simulate_set};
use vi4dvar::method::Method;
use vi4dvar::output::{check_size, check_writable, write_analysis, write_text};

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    #[command(flatten)]
    #[serde(flatten)]
    twin: TwinSettings,
    /// Twins with consecutive seeds, assimilated in lockstep; the table shows their average. Default: 1
    #[arg(long, value_name = "N")]
    twins: usize,
    #[command(flatten)]
    #[serde(flatten)]
    methods: MethodOptions,
    #[command(flatten)]
    #[serde(flatten)]
    hardware: HardwareOptions,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
    #[command(flatten)]
    #[serde(skip)]
    run: RunOptions,
}

#[derive(Args)]
struct Output {
    /// The settings to start from; `list` shows them all. Default: isda-16
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// The directory to write to. Default: out/PRESET
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command)
}

pub(super) fn run(flags: &ArgMatches) -> Result<()> {
    let given = Given::new::<Options>(flags)?;
    let Some(preset) = preset(&given)? else { return Ok(()) };
    let options = given.over(Options {
        twin: preset.twin.clone(),
        twins: 1,
        methods: MethodOptions::new(&preset),
        hardware: HardwareOptions::default(),
        output: Output { preset: None, out: Path::new("out").join(preset.name) },
        run: RunOptions::default(),
    });
    let preset = Preset { twin: options.twin.clone(), methods: options.methods.settings(), ..preset };
    let (out, force) = (&options.output.out, options.run.force);
    let first = preset.twin.seed;
    if !(1..=MOST_TWINS).contains(&options.twins) {
        let expected = format!("1 to {MOST_TWINS}");
        return Err(Error::invalid("--twins", expected, options.twins.to_string(), "change --twins"));
    }
    let Some(last) = first.checked_add(options.twins as u64 - 1) else {
        let found = format!("{} twins from seed {first}", options.twins);
        return Err(Error::invalid("--seed", "consecutive seeds below 2^64", found, "change --twins or --seed"));
    };
    let seeds: Vec<u64> = (first..=last).collect();
    let directories: Vec<PathBuf> = match seeds[..] {
        [_] => vec![out.clone()],
        _ => seeds.iter().map(|seed| out.join(format!("seed-{seed}"))).collect(),
    };
    let targets = directories.iter().flat_map(|d| FILES.map(|file| d.join(file))).chain([out.join("twin.toml")]);
    let targets: Vec<PathBuf> = targets.collect();
    // Nothing is created before all of this has been found in order.
    for target in targets.iter().filter(|t| t.exists()) {
        check_writable(target, force)?;
    }
    check_size("trajectory", &[preset.methods.vi.samples, preset.twin.times, preset.twin.sites])?;
    Method::ALL.iter().try_for_each(|method| preset.methods.check(*method))?;
    let problem = simulate_set(&preset.twin, &seeds)?;
    let engine = options.hardware.engine(&options.run)?;
    let mut new = NewDirectories::default();
    for directory in &directories {
        new.create(directory)?;
    }
    for target in &targets {
        check_writable(target, force)?;
    }

    let mut bar = Bar::new(options.run.quiet);
    let Outcome { analyses, table } = preset.assimilate(&problem, &Method::ALL, &engine, &mut bar)?;
    drop(bar);

    let settings = config::resolved("twin", &options);
    for (p, directory) in directories.iter().enumerate() {
        let single = problem.single(p);
        single.write(directory.join("problem.nc"), &output::attributes("twin", &settings, None), force)?;
        for (file, method) in FILES[1..].iter().zip(&analyses) {
            let attributes = output::analysis_attributes("twin", &settings, &engine, &single, &method[p]);
            write_analysis(directory.join(file), &single, &method[p], &attributes, force)?;
        }
    }
    write_text(out.join("twin.toml"), &settings, force)?;

    let mut text = format!("{}\n{table}\n", describe(&preset, &seeds, problem.assimilated_count(0)));
    if let [_] = seeds[..] {
        for method in &analyses {
            writeln!(text, "{}: {}", method[0].method, method[0].summary).expect("strings take everything");
        }
    }
    writeln!(text, "on {}\nin {}", engine.hardware(), out.display()).expect("strings take everything");
    print(&text)
}

/// The directories that a run made. Those that it leaves empty go with it.
#[derive(Default)]
struct NewDirectories(Vec<PathBuf>);

impl NewDirectories {
    fn create(&mut self, directory: &Path) -> Result<()> {
        let missing: Vec<_> = directory.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        self.0.extend(missing.iter().rev().map(PathBuf::from));
        std::fs::create_dir_all(directory).map_err(|e| {
            Error::file(directory, format!("cannot be created: {e}"), "choose another directory with --out")
        })
    }
}

impl Drop for NewDirectories {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // Refused where there is something in it.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Most twins of one run: a directory each.
const MOST_TWINS: usize = 100_000;

/// The files of each twin: the problem, and each method's analysis in the order in which they run.
const FILES: [&str; 4] = ["problem.nc", "prior.nc", "4dvar.nc", "vi.nc"];

/// The line above the table.
fn describe(preset: &Preset, seeds: &[u64], observations: usize) -> String {
    let TwinSettings { model, sites, times, assimilated_times, operator, .. } = preset.twin;
    let (model, operator) = (model.name(), operator.name());
    let head = format!("{model}, {sites} sites, {assimilated_times} of {times} times assimilated, operator {operator}");
    match seeds {
        [seed] => format!("{head}, {observations} observations, seed {seed}"),
        _ => format!("{head}, mean over the twins of seeds {} to {}", seeds[0], seeds[seeds.len() - 1]),
    }
}
