//! `vi4dvar validate`: this machine's adapter against the oracle and the CPU engine, row by row.

use super::config::Given;
use super::options::{HardwareOptions, RunOptions};
use super::print;
use clap::{ArgAction, ArgMatches, Args, Command};
use std::fmt::Write;
use std::path::PathBuf;
use vi4dvar::engine::{Backend, EngineSettings, Hardware, Precision, Ranks};
use vi4dvar::error::{Error, Result};
use vi4dvar::output::{check_figure, check_writable, growth_figure, write_or_clear_figure, write_scores};
use vi4dvar::validation::{Check, Growth, Validation, check_names, validate};

#[derive(Args)]
struct Options {
    /// Print the rows as one JSON object. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    json: bool,
    /// Rows to run, by name, separated by commas. Default: all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    checks: Vec<String>,
    /// A directory whose WGSL templates replace the built-in ones, for work on kernels. Default: none
    #[arg(long, value_name = "DIR")]
    shaders: Option<PathBuf>,
    /// A directory for validation.json and the figure of error growth. Default: none
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    hardware: HardwareOptions,
    #[command(flatten)]
    run: RunOptions,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command)
        .mut_arg("backend", |a| {
            a.help("What to validate: gpu (a software one if there is no other), cpu. Default: gpu")
        })
        .mut_arg("precision", |a| a.help("The number type: f32, f64. Default: both, where the adapter has f64"))
}

pub(super) fn run(flags: &ArgMatches, _: &Ranks) -> Result<()> {
    let given = Given::new::<Options>(flags)?;
    let one_precision = given.has("precision");
    let hardware = HardwareOptions { backend: Backend::Gpu, ..HardwareOptions::default() };
    let options =
        Options { json: false, checks: vec![], shaders: None, out: None, hardware, run: RunOptions::default() };
    let Options { json, mut checks, shaders, out, hardware, run } = given.over(options);
    for name in &mut checks {
        let trimmed = name.trim();
        let known = check_names().into_iter().find(|known| known.eq_ignore_ascii_case(trimmed));
        *name = known.unwrap_or(trimmed).to_owned();
    }
    let mut settings = EngineSettings { shaders, ..hardware.settings() };
    if settings.backend == Backend::Auto {
        settings.backend = Backend::Gpu;
    }
    if let Some(out) = &out {
        std::fs::create_dir_all(out)
            .map_err(|e| Error::file(out, format!("cannot be created: {e}"), "choose another directory"))?;
        check_writable(out.join("validation.json"), run.force)?;
        check_figure(out, "error-growth", run.force)?;
    }
    let precisions: &[Precision] =
        if one_precision { &[settings.precision] } else { &[Precision::F32, Precision::F64] };
    // A row appears as soon as it is known: all of them take a minute on a software rasteriser.
    let mut rows = 0;
    let validation = validate(&settings, precisions, &checks, |check| {
        if !json {
            let heading = format!("{:<22} {:4} {:>9} {:>9}\n", "check", "type", "figure", "at most");
            // What cannot be printed now fails with the end.
            let _ = print(&format!("{}{}", if rows == 0 { &heading } else { "" }, row(check)));
            rows += 1;
        }
    })?;
    if json {
        let text = serde_json::to_string(&record(&validation, &settings)).expect("plain numbers and names");
        print(&format!("{text}\n"))?;
    } else {
        print(&closing(&validation, &settings))?;
    }
    if let Some(out) = &out {
        write_scores(out.join("validation.json"), &record(&validation, &settings), run.force)?;
        let figure = growth_figure(&validation.growth, &validation.hardware[0]);
        write_or_clear_figure(out, "error-growth", figure.as_ref(), run.force)?;
        if !run.quiet {
            eprintln!("in {}", out.display());
        }
    }
    verdict(&validation, &settings)
}

fn row(check: &Check) -> String {
    let verdict = if check.passed() { "ok" } else { "FAILED" };
    let number = |v: f64| if v == 0.0 || v.fract() == 0.0 && v < 1e6 { format!("{v}") } else { format!("{v:.1e}") };
    let why = check.failure.as_ref().map(|f| format!(": {f}")).unwrap_or_default();
    format!(
        "{:<22} {:4} {:>9} {:>9}  {verdict:6} {}{why}\n",
        check.name,
        check.precision.name(),
        number(check.figure),
        number(check.threshold),
        check.meaning,
    )
}

/// What follows the rows.
fn closing(validation: &Validation, settings: &EngineSettings) -> String {
    let mut text = String::from("\n");
    let mut line = |line: String| writeln!(text, "{line}").expect("strings take everything");
    if !validation.growth.is_empty() {
        line("Error of f32 gradients by length of the window, 40 sites (a plain f32 evaluation in brackets):".into());
        let largest = validation.growth.iter().map(|g| g.engine).fold(0.0, f64::max);
        for Growth { window, engine, plain } in &validation.growth {
            // From 1e-8 on, four marks to a decade.
            let marks = |v: f64| ((v / 1e-8).log10().max(0.0) * 4.0).round() as usize;
            let bar = "#".repeat(marks(*engine).min(marks(largest)));
            line(format!("  {window:4.1} time units  {engine:7.1e} ({plain:7.1e})  {bar}"));
        }
        line(String::new());
    }
    for (precision, reason) in &validation.missing {
        line(format!("not validated in {}: {reason}", precision.name()));
    }
    let passed = validation.checks.iter().filter(|c| c.passed()).count();
    let Hardware { adapter, backend, driver, .. } = &validation.hardware[0];
    let driver = if driver.is_empty() { String::new() } else { format!(", {driver}") };
    line(format!("{passed} of {} rows pass on {adapter} ({backend}{driver})", validation.checks.len()));
    if let Some(shaders) = &settings.shaders {
        line(format!("with the templates of {}, not with those of this version", shaders.display()));
    }
    text
}

fn record(validation: &Validation, settings: &EngineSettings) -> serde_json::Value {
    let rows: Vec<_> = validation
        .checks
        .iter()
        .map(|c| {
            let mut row = serde_json::to_value(c).expect("plain numbers and names");
            row["passed"] = c.passed().into();
            row
        })
        .collect();
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "passed": validation.passed(),
        "kernel": settings.kernel,
        "shaders": settings.shaders,
        "hardware": validation.hardware,
        "missing": validation.missing,
        "checks": rows,
        "growth": validation.growth,
    })
}

fn verdict(validation: &Validation, settings: &EngineSettings) -> Result<()> {
    let failed: Vec<_> = validation.checks.iter().filter(|c| !c.passed()).collect();
    let Some(first) = failed.first() else { return Ok(()) };
    Err(Error::Wrong {
        message: format!(
            "{} of {} rows failed, the first is \"{}\"",
            failed.len(),
            validation.checks.len(),
            first.name
        ),
        help: match &settings.shaders {
            Some(shaders) => format!("look at the templates in {}", shaders.display()),
            None if settings.backend == Backend::Cpu => "do not trust the CPU engine here, and report the table".into(),
            None => "do not trust this adapter: update its driver, or use --backend cpu, and report the table".into(),
        },
    })
}
