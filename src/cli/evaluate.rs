//! `vi4dvar evaluate`: cost and gradient of given members of a problem.

use super::config::{self, Given};
use super::options::{HardwareOptions, RunOptions};
use super::{output, print};
use clap::{ArgAction, ArgMatches, Args, Command};
use ndarray::s;
use serde::Serialize;
use std::path::PathBuf;
use vi4dvar::engine::{Members, Ranks, Terms};
use vi4dvar::error::{Error, Result};
use vi4dvar::output::{check_size, read_members, write_evaluation};
use vi4dvar::problem::Problem;

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    /// The problem file
    #[arg(value_name = "PROBLEM.nc")]
    #[serde(skip)]
    problem: PathBuf,
    /// The member file: initial_state(member, site). Model errors are 0, parameters are their prior's mean
    #[arg(long, value_name = "MEMBERS.nc")]
    #[serde(skip)]
    members: PathBuf,
    /// Write each member's trajectory too. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    trajectories: bool,
    /// The evaluation file to write. Default: evaluation.nc
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    out: PathBuf,
    #[command(flatten)]
    #[serde(flatten)]
    hardware: HardwareOptions,
    #[command(flatten)]
    #[serde(skip)]
    run: RunOptions,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command).mut_arg("problem", |a| a.required(true))
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let options = Given::new::<Options>(flags)?.over(Options {
        problem: PathBuf::new(),
        members: PathBuf::new(),
        trajectories: false,
        out: "evaluation.nc".into(),
        hardware: HardwareOptions::default(),
        run: RunOptions::default(),
    });
    let settings = config::resolved("evaluate PROBLEM.nc --members MEMBERS.nc", &options);
    let Options { problem, members, trajectories, out, hardware, run } = options;
    if members.as_os_str().is_empty() {
        let help = "give a file with initial_state(member, site)";
        return Err(Error::invalid("--members", "a member file", "nothing", help));
    }
    output::check(&out, &[&problem, &members], run.force)?;
    let problem = Problem::read(problem)?;
    let states = read_members(members, problem.sites())?;
    // Without errors of the model, and with the parameters that their prior expects.
    let mut controls =
        problem.control_mean(0).broadcast((states.nrows(), problem.control().len())).expect("one row each").to_owned();
    controls.slice_mut(s![.., ..problem.sites()]).assign(&states);
    check_size("gradient", controls.shape())?;
    if trajectories {
        check_size("trajectory", &[states.nrows(), problem.window.times, problem.sites()])?;
    }
    let engine = hardware.engine(&run, ranks)?;
    let mut loaded = engine.load(&problem)?;
    let members = Members::Given(controls.view());
    let gradients = loaded.gradient(members, Terms::ALL)?;
    let trajectory = if trajectories { Some(loaded.forecast(members)?) } else { None };
    let attributes = output::attributes("evaluate", &settings, Some(&engine));
    let trajectory = trajectory.as_ref().map(|t| t.view());
    write_evaluation(&out, &problem, &gradients, trajectory, &attributes, run.force)?;
    output::save_settings(&out, &settings, run.force)?;
    let diverged = gradients.costs.diverged.iter().filter(|d| **d).count();
    print(&format!("{} members, {diverged} diverged: {}\n", states.nrows(), out.display()))
}
