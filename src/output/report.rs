//! The report: one HTML page with settings, hardware, times, scores and figures, complete in itself.

use super::{Figure, write_text};
use crate::diagnostics::Estimate;
use crate::engine::Engine;
use crate::error::Result;
use crate::experiment::ScoreTable;
use crate::method::Analysis;
use crate::problem::Problem;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use std::path::Path;

/// What a report says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// One or two sentences: what was assimilated, by what.
    pub about: String,
    /// The command that makes it again.
    pub command: String,
    /// The problem at a glance: see [`problem_facts`].
    pub problem: Vec<(String, String)>,
    /// Where it ran: see [`hardware_facts`]. May be empty.
    pub hardware: Vec<(String, String)>,
    /// Every setting, as a configuration file. May be empty.
    pub settings: String,
    /// One line for each method: see [`MethodReport::of`].
    pub methods: Vec<MethodReport>,
    /// Scores: see [`Table::scores`].
    pub tables: Vec<Table>,
    /// The figures, in their order.
    pub figures: Vec<Figure>,
}

/// One method's line.
#[derive(Clone, Debug, Serialize)]
pub struct MethodReport {
    /// The method's name.
    pub name: String,
    /// Its summary: why it stopped, and what to think of it.
    pub summary: String,
    /// Wall time, or a dash where it is not known.
    pub seconds: String,
    /// Wall time of the slides' public code, or a dash where it has no such method.
    pub seed_code_seconds: String,
}

/// A table of cells that are shown as they are; the first column names the rows.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// What it holds.
    pub title: String,
    /// How to read it; may be empty.
    pub note: String,
    /// One heading for each column.
    pub headers: Vec<String>,
    /// As many cells in each row as there are headers.
    pub rows: Vec<Vec<String>>,
}

/// Seconds that the public code to which the slides link takes for the case study on one CPU thread, where it was
/// measured, by how a method's name begins.
const SEED_CODE: [(&str, &str); 3] = [("ABC", "226"), ("Ens. 4DVAR", "113"), ("VI-4DVAR", "27")];

impl MethodReport {
    /// The line of an analysis that took so many seconds, NaN where that is not known.
    pub fn of(analysis: &Analysis, seconds: f64) -> Self {
        let dash = || "–".to_string();
        let seed = SEED_CODE.iter().find(|(name, _)| analysis.method.starts_with(name));
        Self {
            name: analysis.method.clone(),
            summary: analysis.summary.clone(),
            seconds: if seconds.is_finite() { format!("{seconds:.3}") } else { dash() },
            seed_code_seconds: seed.map_or_else(dash, |(_, seconds)| format!("about {seconds}")),
        }
    }
}

/// What each score is called, in how it is to be read, its decimals, and what it is multiplied by.
const SCORES: [(&str, &str, &str, usize, f64); 13] = [
    ("rmse", "RMSE of the mean", "Lower is better.", 3, 1.0),
    ("std", "Mean posterior standard deviation", "", 3, 1.0),
    ("spread", "Spread", "Root of the mean variance: the RMSE that the posterior expects.", 3, 1.0),
    ("spread_skill", "Spread / RMSE", "Ideal 1; below it the posterior is too sure of itself.", 2, 1.0),
    ("coverage_50", "Truth in the central 50 %, in %", "Ideal 50.", 0, 100.0),
    ("coverage_90", "Truth in the central 90 %, in %", "Ideal 90.", 0, 100.0),
    ("crps", "Fair CRPS", "Lower is better.", 3, 1.0),
    ("energy", "Fair energy score", "Lower is better.", 3, 1.0),
    ("variogram", "Variogram score", "Lower is better; sees missing correlations.", 3, 1.0),
    ("distance_mean", "Distance of the mean to the reference, in its sd", "0 is equal.", 3, 1.0),
    ("distance_std", "Distance of log sd to the reference", "0 is equal.", 3, 1.0),
    (
        "distance_covariance",
        "Distance of the covariance to the reference's",
        "0 is equal; at the end of each period.",
        3,
        1.0,
    ),
    ("reference_coverage_90", "Reference in the method's own central 90 %, in %", "Ideal 90.", 1, 100.0),
];

impl Table {
    /// One table for each score that some method has, then what fits came to and how often they were trusted.
    pub fn scores(table: &ScoreTable) -> Vec<Self> {
        let summaries: Vec<_> = table.methods.iter().map(|m| (m.method.clone(), m.summary())).collect();
        let of = |(name, title, note, digits, scale): &(&str, &str, &str, usize, f64)| {
            let cell = |estimate: Option<&Estimate>| {
                let Some(Estimate { mean, standard_error, .. }) = estimate else { return "–".to_string() };
                let mean = format!("{:.digits$}", mean * scale);
                standard_error.map_or(mean.clone(), |e| format!("{mean} ± {:.digits$}", e * scale))
            };
            let own = |k: usize| summaries[k].1.named().into_iter().find(|(n, _)| n == name).and_then(|(_, p)| p);
            let rows = (0..summaries.len()).map(|k| {
                let periods = own(k);
                let forecast = periods.and_then(|p| p.forecast.as_ref());
                let cells = [periods.map(|p| &p.initial), periods.map(|p| &p.window), forecast].map(cell);
                [summaries[k].0.clone()].into_iter().chain(cells).collect()
            });
            let some = (0..summaries.len()).any(|k| own(k).is_some());
            some.then(|| Self {
                title: (*title).into(),
                note: (*note).into(),
                headers: ["method", "t = 0", "window", "forecast"].map(String::from).to_vec(),
                rows: rows.collect(),
            })
        };
        let fits = table.fits().into_iter().map(|block| {
            let (title, note) = block.heading.split_once(" (").unwrap_or((&block.heading, ""));
            Self {
                title: title.into(),
                note: note.trim_end_matches(')').into(),
                headers: ["method".to_string()].into_iter().chain(block.columns).collect(),
                rows: block.rows.into_iter().map(|(name, cells)| [name].into_iter().chain(cells).collect()).collect(),
            }
        });
        SCORES.iter().filter_map(of).chain(fits).collect()
    }
}

/// The first problem of a set at a glance: name and value.
pub fn problem_facts(problem: &Problem) -> Vec<(String, String)> {
    let window = &problem.window;
    let between = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        if low <= high { format!("{low:.3} to {high:.3}") } else { "none".into() }
    };
    let names = problem.model.parameter_names().iter().zip(problem.parameters_of(0)).enumerate();
    let estimated = |k: usize| {
        let std = problem.parameter_std_of(0).map_or(String::new(), |std| format!(" ± {}, estimated", std[k]));
        let truth = problem.true_parameters_of(0).map_or(String::new(), |truth| format!("; truly {:.3}", truth[k]));
        format!("{std}{truth}")
    };
    let parameters: Vec<_> = names.map(|(k, (name, value))| format!("{name} = {value}{}", estimated(k))).collect();
    let errors = problem.model_error.as_ref().map_or("none".to_string(), |q| {
        let deviations = between(&mut q.covariance.std_of(0).into_iter());
        format!("of deviation {deviations}, {} in the window", problem.control().errors)
    });
    let precision = problem.observation_precision(0);
    let observed = precision.iter().filter(|r| **r > 0.0).map(|r| 1.0 / r.sqrt());
    let block = match problem.operator.block_size {
        1 => String::new(),
        size => format!(", averaged over {size} sites"),
    };
    [
        ("model", format!("{} ({})", problem.model.name(), parameters.join(", "))),
        ("sites", problem.sites().to_string()),
        ("stored times", format!("{}, of which the first {} are assimilated", window.times, window.assimilated_times)),
        (
            "time step",
            match window.steps_per_time {
                1 => format!("{} model time units, one per stored time", window.dt),
                steps => format!("{} model time units, {steps} per stored time", window.dt),
            },
        ),
        ("observation operator", format!("{}{block}", problem.operator.function.name())),
        ("observations assimilated", problem.assimilated_count(0).to_string()),
        ("model errors", errors),
        ("background deviations", between(&mut problem.background.std_of(0).into_iter())),
        ("observation deviations", between(&mut observed.into_iter())),
        ("truth", if problem.truth.is_some() { "known (twin experiment)".into() } else { "not known".into() }),
        ("seed", problem.seeds[0].to_string()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

/// Where something ran: name and value.
pub fn hardware_facts(engine: &Engine) -> Vec<(String, String)> {
    let hardware = engine.hardware();
    let mut facts = vec![
        ("adapter".to_string(), hardware.adapter.clone()),
        ("backend".to_string(), hardware.backend.clone()),
        ("precision".to_string(), hardware.precision.name().to_string()),
        ("kernel".to_string(), engine.kernel()),
    ];
    if engine.ranks().count() > 1 {
        facts.push(("ranks".into(), engine.ranks().count().to_string()));
    }
    if !hardware.driver.is_empty() {
        facts.push(("driver".into(), hardware.driver.clone()));
    }
    if hardware.software {
        facts.push(("note".into(), "a software rasteriser, no faster than the CPU engine".into()));
    }
    facts
}

/// Writes the report. It asks for nothing from elsewhere: no script, font, style or picture.
///
/// # Errors
/// A file that exists (unless `overwrite`), or a failing disk.
pub fn write_report(path: impl AsRef<Path>, report: &Report, overwrite: bool) -> Result<()> {
    write_text(path, &html(report), overwrite)
}

fn html(report: &Report) -> String {
    let mut environment = Environment::new();
    // By its name's ending the template escapes what it is given.
    environment.add_template("report.html", include_str!("report.html")).expect("the template is part of the program");
    let template = environment.get_template("report.html").expect("it was just added");
    let context = context! { report => Value::from(Serde(report)), version => env!("CARGO_PKG_VERSION") };
    template.render(context).expect("the template fits the report")
}
