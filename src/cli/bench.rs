//! `vi4dvar bench`: throughput on this machine, and how far it is from what the device can do.

use super::config::{self, Given};
use super::options::{RunOptions, backend, precision};
use super::{output, print};
use clap::{ArgAction, ArgMatches, Args, Command};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;
use vi4dvar::benchmark::{self, Event, Operation, Row, ScalingEvent};
use vi4dvar::engine::{Backend, Precision, Ranks};
use vi4dvar::error::{Error, Result};
use vi4dvar::model::Model;
use vi4dvar::output::{check_figure, throughput, write_or_clear_figure, write_text};
use vi4dvar::posterior::Family;
use vi4dvar::problem::PointFunction;

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    /// What to time: forecast, cost, gradient (of given members, to the host); elbo (members drawn, swept and summed on the
    /// device); vi (an iteration: elbo and Adam on the host); abc (trials, the best selected); ensemble (an iteration of the
    /// ensemble of 4DVAR by Adam: every member's gradient with observations of its own, and its step, on the device).
    /// Default: all
    #[arg(long, value_name = "NAMES", value_delimiter = ',', hide_possible_values = true)]
    operation: Vec<Operation>,
    /// What elbo and vi fit: mean-field, low-rank, full-rank; vi also the flows planar, realnvp, spline, in a build that
    /// has them. Default: mean-field
    #[arg(long, value_name = "NAMES", value_delimiter = ',', hide_possible_values = true)]
    family: Vec<Family>,
    /// What is observed: identity, square, cubic, softplus. Default: square
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = PointFunction::from_name)]
    observation_operator: Vec<PointFunction>,
    /// Where to compute: cpu, gpu, auto. Default: the CPU, and a GPU where there is a real one
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = backend)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backend: Vec<Backend>,
    /// Number types: f32, f64. Default: f32
    #[arg(long, value_name = "TYPES", value_delimiter = ',', value_parser = precision)]
    precision: Vec<Precision>,
    /// The model. Default: lorenz96
    #[arg(long, value_name = "NAME", value_parser = Model::from_name)]
    model: Model,
    /// Sites of the state. Default: 16, or the 3 of lorenz63
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    sites: Vec<usize>,
    /// Times, all observed and assimilated, the initial one included. Default: 12
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    times: Vec<usize>,
    /// RK4 steps between two times. Default: 1
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    steps_per_time: Vec<usize>,
    /// Members of a call. Default: 1,1024,65536
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    members: Vec<usize>,
    /// Measurements of a row. Default: as many as take about 0.4 s, at least 5
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    repeats: Option<usize>,
    /// Short measurements, about 0.05 s a row, and no row that takes longer than 1 s a call. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    quick: bool,
    /// Part of the name of the adapter to use. Default: the best one
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<String>,
    /// Which of several adapters alike, from 0. Default: 0
    #[arg(long, value_name = "K")]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<usize>,
    /// Threads of the CPU engine. Default: all cores
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    /// Most memory that a batch in flight may take, in MiB. Default: 1024
    #[arg(long, value_name = "MIB")]
    memory: u64,
    /// A GPU's kernels: auto (the fastest, measured once), calibrate (measure again), or a variant by its name in a
    /// row. Default: auto
    #[arg(long, value_name = "NAME")]
    kernel: String,
    /// A directory whose WGSL templates replace the GPU engine's own, for work on kernels. Default: none
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    shaders: Option<PathBuf>,
    /// Print one JSON object per row, and the table on standard error unless --quiet. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    json: bool,
    /// A directory for bench.jsonl, the settings and, of one rank, a figure of throughput against members. Default: none
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    out: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip)]
    run: RunOptions,
}

impl Default for Options {
    fn default() -> Self {
        let benchmark::Settings {
            operations: operation,
            families: family,
            operators: observation_operator,
            backends: backend,
            precisions: precision,
            model,
            sites,
            times,
            steps_per_time,
            members,
            repeats,
            quick,
            adapter,
            device,
            threads,
            memory_mib: memory,
            kernel,
            shaders,
        } = benchmark::Settings::default();
        Self {
            operation,
            family,
            observation_operator,
            backend,
            precision,
            model,
            sites,
            times,
            steps_per_time,
            members,
            repeats,
            quick,
            adapter,
            device,
            threads,
            memory,
            kernel,
            shaders,
            json: false,
            out: None,
            run: RunOptions::default(),
        }
    }
}

impl Options {
    fn settings(&self) -> benchmark::Settings {
        benchmark::Settings {
            operations: self.operation.clone(),
            families: self.family.clone(),
            operators: self.observation_operator.clone(),
            backends: self.backend.clone(),
            precisions: self.precision.clone(),
            model: self.model,
            sites: self.sites.clone(),
            times: self.times.clone(),
            steps_per_time: self.steps_per_time.clone(),
            members: self.members.clone(),
            repeats: self.repeats,
            quick: self.quick,
            adapter: self.adapter.clone(),
            device: self.device,
            threads: self.threads,
            memory_mib: self.memory,
            kernel: self.kernel.clone(),
            shaders: self.shaders.clone(),
        }
    }
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command).after_help(
        "A row is a median with its quartiles (+-), end to end and of the kernels alone. \"of limit\" is the time that the \
         nearer bound allows over the time taken: counted vector instructions at the measured rates of multiply-adds and \
         additions, or counted bytes at the measured rate of a copy; of vi with a readback. A row whose numbers are not those of the CPU \
         engine in f64 is not timed, and the exit code is 1.\n\nOn several ranks (mpirun) the rows are of 1, 2, 4, ... and all of \
         them: the same batch on all together (strong), and on each (weak). \"speed-up\" is in members a second against one rank, \
         \"work\" the share of time in which the first rank works on its members, \"wait\" that in which it waits for a slower one, \
         \"messages\" that of the messages between them.",
    )
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let given = Given::new::<Options>(flags)?;
    let mut base = Options::default();
    if let Some(model) = given.model() {
        let (least, most) = model.sites().into_inner();
        base.sites.iter_mut().for_each(|sites| *sites = (*sites).clamp(least, most));
    }
    let options = given.over(base);
    let settings = options.settings();
    settings.check()?;
    let saved = config::resolved("bench", &options);
    let force = options.run.force;
    let lines_path = options.out.as_ref().map(|out| out.join("bench.jsonl"));
    let mut new = output::NewDirectories::default();
    let over_ranks = ranks.count() > 1;
    if let (Some(out), Some(path)) = (&options.out, &lines_path) {
        new.create(out)?;
        output::check(path, &[], force)?;
        if !over_ranks {
            check_figure(out, "throughput", force)?;
        }
    }
    if over_ranks {
        return scaling(&options, &settings, ranks, &saved);
    }
    let bar = bar(options.run.quiet);
    // Both as they come: a run that is cut off keeps its rows.
    let show = |text: &str| show(&options, text);
    let mut lines = String::new();
    let mut engines = 0;
    let mut kernel = None;
    let rows = settings.run(&mut |event| match event {
        Event::Begin(row, of, name) => {
            bar.set_length(of as u64);
            bar.set_position(row as u64 - 1);
            bar.set_message(name.to_owned());
            Ok(())
        }
        Event::Note(text) => {
            bar.suspend(|| eprintln!("note: {text}"));
            Ok(())
        }
        Event::Engine(hardware, ceilings) => {
            engines += 1;
            let gap = if engines > 1 { "\n" } else { "" };
            let heading = format!("{gap}{}", benchmark::heading(hardware, ceilings));
            bar.suspend(|| show(&heading))
        }
        Event::Row(row) => {
            let json = serde_json::to_string(row).expect("a row is plain numbers and names") + "\n";
            lines += &json;
            // The variant of a GPU's kernels, above the first row that it ran.
            let variant = row.kernel.clone().filter(|k| row.backend == "gpu" && kernel.as_ref() != Some(k));
            kernel = row.kernel.clone().or(kernel.take());
            bar.suspend(|| {
                if let Some(variant) = variant {
                    show(&format!("kernel {variant}\n"))?;
                }
                show(&benchmark::line(row))?;
                if options.json { print(&json) } else { Ok(()) }
            })
        }
    })?;
    bar.finish_and_clear();
    if let (Some(out), Some(path)) = (&options.out, &lines_path) {
        write_text(path, &lines, force)?;
        output::save_settings(path, &saved, force)?;
        let figure = throughput(&rows);
        if figure.is_none() && !options.run.quiet {
            eprintln!("note: no figure: it takes two batch sizes of one operation");
        }
        write_or_clear_figure(out, "throughput", figure.as_ref(), force)?;
        if !options.run.quiet {
            eprintln!("in {}", out.display());
        }
    }
    verdict(&rows)
}

/// What is for people: on standard error where the rows are for programs.
fn show(options: &Options, text: &str) -> Result<()> {
    match (options.json, options.run.quiet) {
        (false, _) => print(text),
        (true, false) => {
            eprint!("{text}");
            Ok(())
        }
        (true, true) => Ok(()),
    }
}

/// Times what more ranks buy.
fn scaling(options: &Options, settings: &benchmark::Settings, ranks: &Ranks, saved: &str) -> Result<()> {
    let mut lines = String::new();
    settings.scaling(ranks, &mut |event| match event {
        ScalingEvent::Note(text) => {
            eprintln!("note: {text}");
            Ok(())
        }
        ScalingEvent::Engine(engine) => show(options, &benchmark::scaling_heading(engine)),
        ScalingEvent::Row(row) => {
            let json = serde_json::to_string(row).expect("a row is plain numbers and names") + "\n";
            lines += &json;
            show(options, &benchmark::scaling_line(row))?;
            if options.json { print(&json) } else { Ok(()) }
        }
    })?;
    if let Some(out) = &options.out {
        let path = out.join("bench.jsonl");
        write_text(&path, &lines, options.run.force)?;
        output::save_settings(&path, saved, options.run.force)?;
        if !options.run.quiet {
            eprintln!("in {}", out.display());
        }
    }
    Ok(())
}

/// An error where a row was not what it should be.
fn verdict(rows: &[Row]) -> Result<()> {
    let wrong: Vec<_> = rows.iter().filter(|row| row.error.is_some()).collect();
    let Some(first) = wrong.first() else { return Ok(()) };
    Err(Error::Wrong {
        message: format!(
            "{} of {} rows differ from the CPU engine in f64 and were not timed; the first: {} on {}, {} sites, {} members: {}",
            wrong.len(),
            rows.len(),
            first.operation.name(),
            first.adapter,
            first.sites,
            first.members,
            first.error.as_deref().unwrap_or_default()
        ),
        help: "update the driver, choose another --adapter, and report this".into(),
    })
}

/// Which row is being timed, on standard error where that is a terminal.
fn bar(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} {eta} left").expect("the template is valid");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}
