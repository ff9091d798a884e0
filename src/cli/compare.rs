//! `vi4dvar compare`: analyses made earlier, of one problem, side by side.

use super::config::Given;
use super::options::RunOptions;
use super::print;
use clap::{ArgMatches, Args, Command};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use vi4dvar::engine::Ranks;
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::{Reference, ScoreTable};
use vi4dvar::method::{Analysis, Method};
use vi4dvar::output::{
    AttributeValue, MethodReport, Report, SavedAnalysis, Table, check_figures, check_writable, figures, problem_facts,
    read_analysis, write_figures, write_report, write_scores,
};
use vi4dvar::problem::Problem;

#[derive(Args)]
struct Options {
    /// The analysis files, of one problem
    #[arg(value_name = "ANALYSIS.nc")]
    files: Vec<PathBuf>,
    /// The directory to write to. Default: out/compare
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    run: RunOptions,
}

pub(super) fn flags(command: Command) -> Command {
    Options::augment_args_for_update(command).mut_arg("files", |a| a.required(true))
}

pub(super) fn run(flags: &ArgMatches, _: &Ranks) -> Result<()> {
    let Options { files, out, run } = Given::new::<Options>(flags)?.over(Options {
        files: Vec::new(),
        out: Path::new("out").join("compare"),
        run: RunOptions::default(),
    });
    if let Some(twice) = files.iter().enumerate().find(|(k, file)| files[..*k].contains(file)) {
        return Err(Error::file(twice.1, "is given twice", "give each analysis once"));
    }
    let (scores, report, pictures) = (out.join("scores.json"), out.join("report.html"), out.join("figures"));
    for target in [&scores, &report].into_iter().filter(|t| t.exists()) {
        check_writable(target, run.force)?;
    }
    check_figures(&pictures, run.force)?;
    let saved = files.iter().map(read_analysis).collect::<Result<Vec<_>>>()?;
    let problem = &saved[0].problem;
    for (file, other) in files.iter().zip(&saved).skip(1) {
        if let Some(difference) = difference(problem, &other.problem) {
            let message = format!("expected the problem of {}, found another one: {difference}", files[0].display());
            return Err(Error::file(file, message, "compare analyses of one problem"));
        }
    }
    let named: Vec<Analysis> = names(&files, &saved)
        .into_iter()
        .zip(&saved)
        .map(|(method, s)| Analysis { method, ..s.analysis.clone() })
        .collect();
    let agreed = |a: &Analysis| a.number("agreed") == Some(1.0);
    let reference = saved
        .iter()
        .position(|s| s.analysis.method == Method::Reference.title() && agreed(&s.analysis))
        .map(|method| Reference { method, agreed: &[true] });
    let sets: Vec<_> = named.iter().map(|a| vec![a.clone()]).collect();
    let table = ScoreTable::new(problem, &sets, reference);
    let drawn = figures(problem, &named, &table)?;

    std::fs::create_dir_all(&out)
        .map_err(|e| Error::file(&out, format!("cannot be created: {e}"), "choose another directory with --out"))?;
    write_figures(&pictures, &drawn, run.force)?;
    write_scores(&scores, &table, run.force)?;
    let shown: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
    let page = Report {
        title: format!("{} analyses of one problem", named.len()),
        about: format!("Analyses made earlier, side by side: {}.", shown.join(", ")),
        command: format!("vi4dvar compare {} --out {}", shown.join(" "), out.display()),
        problem: problem_facts(problem),
        hardware: hardware(&named, &saved),
        settings: settings(&named, &saved),
        methods: named.iter().map(|a| MethodReport::of(a, a.seconds)).collect(),
        tables: Table::scores(&table),
        figures: drawn,
    };
    write_report(&report, &page, run.force)?;
    let mut text = format!("{table}\n");
    for analysis in &named {
        writeln!(text, "{}: {}", analysis.method, analysis.summary).expect("strings take everything");
    }
    writeln!(text, "in {}", out.display()).expect("strings take everything");
    print(&text)
}

/// The methods' names; where several files hold the same method, with the file's, or its path where names are shared.
fn names(files: &[PathBuf], saved: &[SavedAnalysis]) -> Vec<String> {
    let shared = |names: &[String], k: usize| names.iter().filter(|n| **n == names[k]).count() > 1;
    let methods: Vec<String> = saved.iter().map(|s| s.analysis.method.clone()).collect();
    let stem = |k: usize| files[k].file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let with = |name: String, k: usize| format!("{} ({name})", methods[k]);
    let by_stem: Vec<String> =
        (0..files.len()).map(|k| if shared(&methods, k) { with(stem(k), k) } else { methods[k].clone() }).collect();
    (0..files.len())
        .map(|k| if shared(&by_stem, k) { with(files[k].display().to_string(), k) } else { by_stem[k].clone() })
        .collect()
}

/// In what the second problem differs from the first.
fn difference(a: &Problem, b: &Problem) -> Option<String> {
    let differ = |what: &str, first: String, second: String| Some(format!("{what} {second}, not {first}"));
    if a.model.name() != b.model.name() {
        return differ("model", a.model.name().into(), b.model.name().into());
    }
    if a.sites() != b.sites() {
        return differ("sites", a.sites().to_string(), b.sites().to_string());
    }
    let window = |p: &Problem| {
        let w = &p.window;
        format!("{} times, {} assimilated, {} steps of {} each", w.times, w.assimilated_times, w.steps_per_time, w.dt)
    };
    if a.window != b.window {
        return differ("window of", window(a), window(b));
    }
    if a.operator != b.operator {
        let name = |p: &Problem| format!("{} over {} sites", p.operator.function.name(), p.operator.block_size);
        return differ("observation operator", name(a), name(b));
    }
    let (p, q) = (a.assimilated_count(0), b.assimilated_count(0));
    if p != q {
        return differ("number of observations", p.to_string(), q.to_string());
    }
    let error = |problem: &Problem| problem.background.error.covariance_of(0);
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    let equal = |a: ndarray::ArrayViewD<f64>, b: ndarray::ArrayViewD<f64>| {
        a.shape() == b.shape() && a.iter().zip(b).all(|(a, b)| same(*a, *b))
    };
    let prior =
        |problem: &Problem| ndarray::concatenate![ndarray::Axis(0), problem.control_mean(0), problem.control_std(0)];
    let model_error = |problem: &Problem| {
        let covariance = problem.model_error.as_ref().map(|q| q.covariance.covariance_of(0));
        covariance.unwrap_or_default().into_dyn()
    };
    let dynamic = |a: &ndarray::Array2<f64>| a.clone().into_dyn();
    let unequal = [
        ("model parameters", equal(a.parameters.view().into_dyn(), b.parameters.view().into_dyn())),
        ("prior of the control", equal(prior(a).view().into_dyn(), prior(b).view().into_dyn())),
        ("model error", equal(model_error(a).view(), model_error(b).view())),
        ("observations", equal(a.observations.view().into_dyn(), b.observations.view().into_dyn())),
        (
            "observation deviations",
            equal(dynamic(&a.observation_precision(0)).view(), dynamic(&b.observation_precision(0)).view()),
        ),
        ("background", equal(a.background.mean.view().into_dyn(), b.background.mean.view().into_dyn())),
        ("background error", equal(dynamic(&error(a)).view(), dynamic(&error(b)).view())),
        (
            "true parameters",
            match (&a.true_parameters, &b.true_parameters) {
                (Some(a), Some(b)) => equal(a.view().into_dyn(), b.view().into_dyn()),
                (a, b) => a.is_none() && b.is_none(),
            },
        ),
        (
            "truth",
            match (&a.truth, &b.truth) {
                (Some(a), Some(b)) => equal(a.view().into_dyn(), b.view().into_dyn()),
                (a, b) => a.is_none() && b.is_none(),
            },
        ),
    ];
    unequal.iter().find(|(_, equal)| !equal).map(|(what, _)| format!("other numbers in its {what}"))
}

fn attribute(saved: &SavedAnalysis, name: &str) -> String {
    match saved.attributes.get(name) {
        Some(AttributeValue::Text(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "not known".into(),
    }
}

/// Where each analysis was made.
fn hardware(named: &[Analysis], saved: &[SavedAnalysis]) -> Vec<(String, String)> {
    let place = |s| ["adapter", "backend", "driver", "precision", "kernel"].map(|name| attribute(s, name)).join(", ");
    named.iter().zip(saved).map(|(a, s)| (a.method.clone(), place(s))).collect()
}

/// The settings of each analysis, as its file has them.
fn settings(named: &[Analysis], saved: &[SavedAnalysis]) -> String {
    let of = |(a, s): (&Analysis, &SavedAnalysis)| format!("# {}\n{}\n", a.method, attribute(s, "settings").trim_end());
    named.iter().zip(saved).map(of).collect::<Vec<_>>().join("\n")
}
