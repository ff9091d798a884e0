//! `vi4dvar assimilate`: assimilate a problem file by one method.

use super::config::{self, Given};
use super::options::{HardwareOptions, KeepOptions, MethodOptions, RunOptions};
use super::progress::{Bar, checkpoint_of};
use super::{output, print};
use clap::{ArgMatches, Args, Command};
use serde::Serialize;
use std::path::PathBuf;
use vi4dvar::engine::Ranks;
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::{Preset, ScoreTable};
use vi4dvar::method::Method;
use vi4dvar::output::{check_size, write_analysis};
use vi4dvar::problem::Problem;

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    /// The problem file
    #[arg(value_name = "PROBLEM.nc")]
    #[serde(skip)]
    problem: PathBuf,
    /// The method
    #[arg(long, value_name = "NAME")]
    method: Option<Method>,
    /// The seed of the method's draws. Default: that of the problem
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// The analysis file to write. Default: analysis.nc
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    out: PathBuf,
    #[command(flatten)]
    #[serde(flatten)]
    methods: MethodOptions,
    #[command(flatten)]
    #[serde(flatten)]
    hardware: HardwareOptions,
    #[command(flatten)]
    #[serde(skip)]
    run: RunOptions,
    #[command(flatten)]
    #[serde(skip)]
    keep: KeepOptions,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command).mut_arg("problem", |a| a.required(true))
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let mut options = Given::new::<Options>(flags)?.over(Options {
        problem: PathBuf::new(),
        method: None,
        seed: None,
        out: "analysis.nc".into(),
        methods: MethodOptions::new(&Preset::default()),
        hardware: HardwareOptions::default(),
        run: RunOptions::default(),
        keep: KeepOptions::default(),
    });
    let Some(method) = options.method else {
        let expected = format!("one of {}", Method::ALL.map(Method::name).join(", "));
        return Err(Error::invalid("--method", expected, "nothing", "choose a method"));
    };
    let &[method] = &options.methods.methods(&[method])[..] else {
        let found = format!("{} families", options.methods.family.len());
        return Err(Error::invalid("--family", "one family", found, "name one, or use twin"));
    };
    options.method = Some(method);
    let out = &options.out;
    let force = options.keep.overwrites(&options.run, out);
    output::check(out, &[&options.problem], force)?;
    let mut problem = Problem::read(&options.problem)?;
    // The settings that are saved name the seed that was used.
    problem.seeds = vec![*options.seed.get_or_insert(problem.seeds[0])];
    let samples = options.methods.settings().samples_of(method);
    check_size("trajectory", &[samples, problem.window.times, problem.sites()])?;
    let settings = config::resolved("assimilate PROBLEM.nc", &options);
    let engine = options.hardware.engine(&options.run, ranks)?;
    let mut inputs = options.methods.inputs();
    inputs.push(&options.problem);
    let bar = Bar::new(&options.run, &options.keep, checkpoint_of(out), &settings, &inputs, &engine)?;
    bar.conclude(|bar| {
        let analyses = options.methods.settings().run(method, &problem, &engine, bar)?;
        bar.clear();
        let attributes = output::analysis_attributes("assimilate", &settings, &engine, &problem, &analyses[0]);
        write_analysis(out, &problem, &analyses[0], &attributes, force)?;
        output::save_settings(out, &settings, force)?;
        let table = ScoreTable::new(&problem, std::slice::from_ref(&analyses), None);
        let summary = &analyses[0].summary;
        print(&format!("{table}{}: {summary}\non {engine}\n{}\n", analyses[0].method, out.display()))
    })
}
