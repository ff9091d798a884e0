//! The table of scores that ends an experiment: for people, and as JSON.
//!
//! As JSON (any serde format) a [`ScoreTable`] is
//!
//! ```json
//! {"twins": 50,
//!  "reference": {"method": "Gold standard", "agreed": 48, "disagreed": 2},
//!  "methods": [
//!    {"method": "4DVAR",
//!     "scores": {
//!       "rmse": {"initial": {"mean": 0.369, "standard_error": 0.012, "count": 50}, "window": {…}, "forecast": {…}},
//!       "std": …, "spread": …, "spread_skill": …, "coverage_50": …, "coverage_90": …, "crps": …, "energy": …,
//!       "variogram": …, "distance_mean": …, "distance_std": …, "distance_covariance": …, "reference_coverage_90": …,
//!       "rank": {"initial": {"counts": […], "expected": […], "band_low": […], "band_high": […], "chi_squared": …,
//!                            "p_value": …}, "window": {…}, "forecast": {…}},
//!       "cost_fit": {"minimum": {…}, "expected_minimum": …, "variance": {…}, "expected_variance": …, "p_value": …},
//!       "fit": {"elbo": {…}, "k_hat": {…}, "divergence": {…}},
//!       "parameters": [{"name": "forcing", "rmse": {…}, "spread": {…}, "coverage_50": {…}, "coverage_90": {…}}],
//!       "verdict": {"mean_and_spread": {"said": 31, "judged": 31, "right": 30, "truth": 33}, "mean_only": {…}, "neither": {…}}
//!     }}]}
//! ```
//!
//! Every key is always there; what does not apply is `null`, and so is a number that is not finite. Times are not in
//! it: the same run gives the same scores, but not in the same time.

use crate::diagnostics::{
    CostFit, Estimate, FitQuality, ParameterQuality, Periods, ScoreInput, ScoreReference, ScoreSummary, Scores,
    TRUSTED_COVERAGE, TRUSTED_MEAN_GAP, Trust, VerdictCount, VerdictSummary,
};
use crate::method::Analysis;
use crate::problem::Problem;
use rayon::prelude::*;
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Scores of several methods on one problem or on repeated twins. Displays as a table for people.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ScoreTable {
    /// Problems in it.
    pub twins: usize,
    /// How often there was a reference posterior to measure distances from; `None` if no method is one.
    pub reference: Option<ReferenceCount>,
    /// The methods, in the order in which they were given.
    pub methods: Vec<MethodScores>,
}

/// One method's scores. Serialises as name and summary.
#[derive(Clone, Debug)]
pub struct MethodScores {
    /// The method's name.
    pub method: String,
    /// Wall time in seconds over all problems; NaN where it is not known.
    pub seconds: f64,
    /// The scores of each problem.
    pub twins: Vec<Scores>,
}

/// A table with all that it is made of, for a checkpoint.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptTable {
    twins: usize,
    reference: Option<ReferenceCount>,
    methods: Vec<(String, f64, Vec<Scores>)>,
}

impl From<&ScoreTable> for KeptTable {
    fn from(table: &ScoreTable) -> Self {
        let method = |m: &MethodScores| (m.method.clone(), m.seconds, m.twins.clone());
        let methods = table.methods.iter().map(method).collect();
        Self { twins: table.twins, reference: table.reference.clone(), methods }
    }
}

impl From<KeptTable> for ScoreTable {
    fn from(kept: KeptTable) -> Self {
        let method = |(method, seconds, twins)| MethodScores { method, seconds, twins };
        let methods = kept.methods.into_iter().map(method).collect();
        Self { twins: kept.twins, reference: kept.reference, methods }
    }
}

/// Which of the methods is the reference posterior.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Its place among the methods.
    pub method: usize,
    /// For each problem, whether it can be trusted (its independent runs agree): `[P]`.
    pub agreed: &'a [bool],
}

/// In how many problems a reference posterior could be trusted. Distances are taken in those alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceCount {
    /// The reference method's name.
    pub method: String,
    /// Problems in which its runs agreed.
    pub agreed: usize,
    /// Problems in which they did not.
    pub disagreed: usize,
}

impl ScoreTable {
    /// The scores of a set of problems. `analyses` has one entry per method, each with one analysis per problem.
    ///
    /// # Panics
    /// If a method has another number of analyses than there are problems, or an analysis another shape than they.
    pub fn new(problem: &Problem, analyses: &[Vec<Analysis>], reference: Option<Reference>) -> Self {
        let mut table = Self::default();
        table.add(problem, analyses, reference);
        table
    }

    /// Takes in another set of problems, assimilated by the same methods with the same reference.
    ///
    /// # Panics
    /// As [`Self::new`], or if the methods are not those of the table.
    pub fn add(&mut self, problem: &Problem, analyses: &[Vec<Analysis>], reference: Option<Reference>) {
        if self.twins == 0 {
            let empty = |twins: &Vec<Analysis>| {
                let method = twins.first().map(|a| a.method.clone()).unwrap_or_default();
                MethodScores { method, seconds: 0.0, twins: Vec::new() }
            };
            self.methods = analyses.iter().map(empty).collect();
        }
        assert_eq!(analyses.len(), self.methods.len(), "a table's sets have the same methods");
        for (row, own) in self.methods.iter_mut().zip(analyses) {
            assert_eq!(own.len(), problem.count(), "one analysis of {} for each problem", row.method);
            row.seconds += own.first().map_or(0.0, |a| a.seconds);
        }
        let score = |k: usize| {
            let (method, p) = (k / problem.count(), k % problem.count());
            let trusted = reference.filter(|r| r.method != method && r.agreed[p]).map(|r| &analyses[r.method][p]);
            scores(problem, p, &analyses[method][p], trusted)
        };
        let mut all: Vec<Scores> = (0..analyses.len() * problem.count()).into_par_iter().map(score).collect();
        for row in self.methods.iter_mut().rev() {
            row.twins.append(&mut all.split_off(all.len() - problem.count()));
        }
        self.twins += problem.count();
        if let Some(r) = reference {
            let method = self.methods[r.method].method.clone();
            let count = self.reference.get_or_insert(ReferenceCount { method, agreed: 0, disagreed: 0 });
            let agreed = r.agreed.iter().filter(|agreed| **agreed).count();
            count.agreed += agreed;
            count.disagreed += problem.count() - agreed;
        }
    }
}

impl MethodScores {
    /// Mean and standard error of each score.
    pub fn summary(&self) -> ScoreSummary {
        Scores::summary(&self.twins)
    }
}

impl Serialize for MethodScores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("MethodScores", 2)?;
        fields.serialize_field("method", &self.method)?;
        fields.serialize_field("scores", &self.summary())?;
        fields.end()
    }
}

/// Scores of the analysis of problem `p`, and its distance to a reference posterior.
///
/// The rank is taken at one site: the problem's seed modulo the number of sites, so that twins take turns.
///
/// # Panics
/// If an analysis has another shape than the problem.
pub fn scores(problem: &Problem, p: usize, analysis: &Analysis, reference: Option<&Analysis>) -> Scores {
    let fit = |twice_minimum| CostFit::new(twice_minimum, problem.assimilated_count(p));
    Scores::new(&ScoreInput {
        mean: analysis.mean.view(),
        std: analysis.std.view(),
        samples: analysis.samples.view(),
        assimilated_times: problem.window.assimilated_times,
        truth: problem.truth_of(p),
        reference: reference.map(|r| ScoreReference {
            mean: r.mean.view(),
            std: r.std.view(),
            samples: r.samples.view(),
        }),
        rank_site: (problem.seeds[p] % problem.sites() as u64) as usize,
        cost_fit: analysis.number("twice_minimum_cost").and_then(fit),
        fit: analysis.number("final_elbo").zip(analysis.number("k_hat")).map(|(elbo, k_hat)| FitQuality {
            elbo,
            k_hat,
            divergence: reference.and_then(|r| r.number("log_evidence")).map(|evidence| evidence - elbo),
        }),
        // Of samples that the weights have corrected it says nothing.
        verdict: analysis
            .number("verdict")
            .filter(|_| analysis.number("corrected").is_none())
            .and_then(Trust::from_number),
        parameters: parameter_quality(problem, p, analysis),
    })
}

/// Sampled parameters against the truth's, where they are estimated and it is known.
fn parameter_quality(problem: &Problem, p: usize, analysis: &Analysis) -> Option<Vec<ParameterQuality>> {
    let samples = analysis.record("parameter_sample")?.values.view().into_dimensionality().ok()?;
    ParameterQuality::of_each(problem.model.parameter_names(), samples, problem.true_parameters_of(p)?)
}

/// Widest line of a table, in characters. A group of columns that is wider alone still stays in one line.
const WIDTH: usize = 120;

/// Three columns of one score.
struct Group {
    title: &'static str,
    score: fn(&ScoreSummary) -> Option<&Periods<Estimate>>,
    digits: usize,
    /// What values are multiplied by.
    scale: f64,
}

/// What is read together.
fn blocks(reference: &str) -> [(String, Vec<Group>); 4] {
    let group = |title, score| Group { title, score, digits: 3, scale: 1.0 };
    let share = |title, score| Group { title, score, digits: 0, scale: 100.0 };
    [
        (
            "Accuracy and spread".into(),
            vec![group("RMSE of the mean", |s| s.rmse.as_ref()), group("mean posterior sd", |s| s.std.as_ref())],
        ),
        (
            "Calibration: is the spread the error?".into(),
            vec![
                Group { digits: 2, ..group("spread / RMSE (ideal 1)", |s| s.spread_skill.as_ref()) },
                share("truth in central 50 %, %", |s| s.coverage_50.as_ref()),
                share("truth in central 90 %, %", |s| s.coverage_90.as_ref()),
            ],
        ),
        (
            "Probabilistic scores (lower is better)".into(),
            vec![
                group("fair CRPS", |s| s.crps.as_ref()),
                group("fair energy score", |s| s.energy.as_ref()),
                group("variogram score", |s| s.variogram.as_ref()),
            ],
        ),
        (
            format!("Distance to {reference} (0 is equal)"),
            vec![
                group("of the mean, in its sd", |s| s.distance_mean.as_ref()),
                group("of log sd", |s| s.distance_std.as_ref()),
                group("of the covariance", |s| s.distance_covariance.as_ref()),
                Group { digits: 1, ..share("of it in own 90 %, %", |s| s.reference_coverage_90.as_ref()) },
            ],
        ),
    ]
}

/// Columns under one title: a line of headings, then a line per method.
struct Columns {
    title: String,
    cells: Vec<Vec<String>>,
}

impl Columns {
    /// `None` where no method has the score.
    fn new(group: &Group, summaries: &[ScoreSummary]) -> Option<Self> {
        let cell = |estimate: Option<&Estimate>| {
            let Some(Estimate { mean, standard_error, .. }) = estimate else { return "-".into() };
            let mean = format!("{:.*}", group.digits, mean * group.scale);
            standard_error.map_or(mean.clone(), |e| format!("{mean} ± {:.*}", group.digits, e * group.scale))
        };
        let row = |summary: &ScoreSummary| {
            let periods = (group.score)(summary);
            let forecast = periods.and_then(|p| p.forecast.as_ref());
            [periods.map(|p| &p.initial), periods.map(|p| &p.window), forecast].map(cell).to_vec()
        };
        let heading = ["t = 0", "window", "forecast"].map(String::from).to_vec();
        let cells = [heading].into_iter().chain(summaries.iter().map(row)).collect();
        summaries.iter().any(|s| (group.score)(s).is_some()).then_some(Self { title: group.title.into(), cells })
    }

    /// How often a verdict was said and how often rightly; `None` where no method has verdicts. Without a reference it can
    /// only be said.
    fn verdicts(trust: Trust, summaries: &[ScoreSummary]) -> Option<Self> {
        let (title, count): (_, fn(&VerdictSummary) -> VerdictCount) = match trust {
            Trust::MeanAndSpread => ("trust mean and spread", |v| v.mean_and_spread),
            Trust::MeanOnly => ("trust the mean only", |v| v.mean_only),
            Trust::Neither => ("trust neither", |v| v.neither),
        };
        let judged = summaries
            .iter()
            .filter_map(|s| s.verdict.as_ref())
            .any(|v| [v.mean_and_spread, v.mean_only, v.neither].iter().any(|count| count.judged > 0));
        let shown = if judged { 3 } else { 1 };
        let row = |summary: &ScoreSummary| match summary.verdict.as_ref().map(count) {
            None => vec!["-".to_string(); shown],
            Some(VerdictCount { said, right, truth, .. }) => {
                [said, right, truth][..shown].iter().map(usize::to_string).collect()
            }
        };
        let heading = ["said", "rightly", "true of"][..shown].iter().map(ToString::to_string).collect();
        let cells = [heading].into_iter().chain(summaries.iter().map(row)).collect();
        summaries.iter().any(|s| s.verdict.is_some()).then_some(Self { title: title.into(), cells })
    }

    /// What a fit came to; `None` where no method maximises an ELBO.
    fn fits(summaries: &[ScoreSummary]) -> Option<Self> {
        let cell = |estimate: Option<Estimate>, digits: usize| {
            let Some(Estimate { mean, standard_error, .. }) = estimate else { return "-".into() };
            let mean = format!("{mean:.digits$}");
            standard_error.map_or(mean.clone(), |e| format!("{mean} ± {e:.digits$}"))
        };
        // Only a reference knows log p(y).
        let known = summaries.iter().filter_map(|s| s.fit.as_ref()).any(|fit| fit.divergence.is_some());
        let shown = |cells: [String; 3]| -> Vec<String> {
            cells.into_iter().enumerate().filter(|(k, _)| known || *k != 1).map(|(_, cell)| cell).collect()
        };
        let row = |summary: &ScoreSummary| match &summary.fit {
            None => shown(["-"; 3].map(String::from)),
            Some(fit) => shown([cell(Some(fit.elbo), 2), cell(fit.divergence, 3), cell(Some(fit.k_hat), 2)]),
        };
        let heading = shown(["ELBO", "log p(y) - ELBO", "k-hat"].map(String::from));
        let cells = [heading].into_iter().chain(summaries.iter().map(row)).collect();
        summaries.iter().any(|s| s.fit.is_some()).then_some(Self { title: "of the fit".into(), cells })
    }

    /// Each estimated parameter, with its name; nothing where no method has any.
    fn parameters(summaries: &[ScoreSummary]) -> Vec<(String, Self)> {
        let cell = |Estimate { mean, standard_error, .. }: Estimate, digits: usize, scale: f64| {
            let mean = format!("{:.digits$}", mean * scale);
            standard_error.map_or(mean.clone(), |e| format!("{mean} ± {:.digits$}", e * scale))
        };
        let row = |summary: &ScoreSummary, k: usize| match &summary.parameters {
            None => vec!["-".to_string(); 4],
            Some(all) => vec![
                cell(all[k].rmse, 4, 1.0),
                cell(all[k].spread, 4, 1.0),
                cell(all[k].coverage_50, 0, 100.0),
                cell(all[k].coverage_90, 0, 100.0),
            ],
        };
        let one = |(k, quality): (usize, &ParameterQuality<Estimate>)| {
            let heading = ["RMSE", "posterior sd", "truth in 50 %, %", "in 90 %, %"].map(String::from).to_vec();
            let cells = [heading].into_iter().chain(summaries.iter().map(|summary| row(summary, k))).collect();
            (quality.name.clone(), Self { title: quality.name.clone(), cells })
        };
        let any = summaries.iter().find_map(|summary| summary.parameters.as_ref());
        any.into_iter().flatten().enumerate().map(one).collect()
    }

    /// One column of seconds; `None` where no method knows its own.
    fn seconds(methods: &[MethodScores], twins: usize) -> Option<Self> {
        let cell = |s: f64| if s.is_finite() { format!("{s:.2}") } else { "-".into() };
        let cells = methods.iter().map(|m| vec![cell(m.seconds)]);
        let title = if twins > 1 { "s in all" } else { "seconds" };
        let cells = [vec![title.into()]].into_iter().chain(cells).collect();
        methods.iter().any(|m| m.seconds.is_finite()).then_some(Self { title: String::new(), cells })
    }

    /// Its lines, the title first, all of one width.
    fn lines(&self) -> Vec<String> {
        let longest = |c: usize| self.cells.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.cells[0].len()).map(|c| longest(c) + 2).collect();
        // A long title widens the first column.
        let lack = (self.title.chars().count() + 2).saturating_sub(widths.iter().sum());
        let widths: Vec<usize> = widths.iter().enumerate().map(|(c, w)| w + if c == 0 { lack } else { 0 }).collect();
        let line = |row: &Vec<String>| row.iter().zip(&widths).map(|(cell, w)| format!("{cell:>w$}")).collect();
        let width = widths.iter().sum::<usize>();
        // Centred over the cells, which start two characters in.
        let title = format!("  {:^1$}", self.title, width - 2);
        [title].into_iter().chain(self.cells.iter().map(line)).collect()
    }
}

/// A table for those who set it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it holds and how to read it.
    pub heading: String,
    /// The name of each column.
    pub columns: Vec<String>,
    /// The method's name and its cells, one for each column.
    pub rows: Vec<(String, Vec<String>)>,
}

impl ScoreTable {
    /// How well parameters were estimated, what fits came to, and over several twins how often each verdict was said: nothing
    /// where no method does.
    pub fn fits(&self) -> Vec<Block> {
        let summaries: Vec<_> = self.methods.iter().map(MethodScores::summary).collect();
        let block = |(heading, columns): (String, Vec<Columns>)| {
            let name = |of: &Columns, cell: &String| format!("{}: {cell}", of.title);
            let names = |of: &Columns| of.cells[0].iter().map(|cell| name(of, cell)).collect::<Vec<_>>();
            let row = |k: usize| columns.iter().flat_map(|of| of.cells[k + 1].clone()).collect();
            let rows = self.methods.iter().enumerate().map(|(k, m)| (m.method.clone(), row(k))).collect();
            let columns: Vec<String> = columns.iter().flat_map(names).collect();
            (!columns.is_empty()).then_some(Block { heading, columns, rows })
        };
        self.fit_columns(&summaries).into_iter().filter_map(block).collect()
    }

    fn fit_columns(&self, summaries: &[ScoreSummary]) -> Vec<(String, Vec<Columns>)> {
        let reference = self.reference.as_ref().map_or("the reference", |r| &r.method);
        let [low, high] = TRUSTED_COVERAGE.map(|c| 100.0 * c);
        let heading = format!(
            "Verdicts, in twins (the spread is right where own 90 % intervals hold {low} to {high} % of {reference} \
             at t = 0, the mean where it is within {TRUSTED_MEAN_GAP} sd)"
        );
        // Of one twin its sentence says more.
        let all = if self.twins > 1 { &Trust::ALL[..] } else { &[] };
        let verdicts = all.iter().rev().filter_map(|trust| Columns::verdicts(*trust, summaries)).collect();
        let parameters = Columns::parameters(summaries).into_iter();
        let parameters = parameters.map(|(name, columns)| (format!("Parameters of the model: {name}"), vec![columns]));
        let fits = ("Fits, in nats".into(), Columns::fits(summaries).into_iter().collect());
        parameters.chain([fits, (heading, verdicts)]).collect()
    }
}

impl fmt::Display for ScoreTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summaries: Vec<_> = self.methods.iter().map(MethodScores::summary).collect();
        let names: Vec<&str> = ["", ""].into_iter().chain(self.methods.iter().map(|m| m.method.as_str())).collect();
        let name_width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        let reference = self.reference.as_ref().map_or("the reference", |r| &r.method);
        let mut between = "";
        let scores = blocks(reference).into_iter().enumerate().map(|(b, (heading, groups))| {
            let mut columns: Vec<_> = groups.iter().filter_map(|g| Columns::new(g, &summaries)).collect();
            if b == 0 && !columns.is_empty() {
                columns.extend(Columns::seconds(&self.methods, self.twins));
            }
            (heading, columns)
        });
        for (heading, columns) in scores.chain(self.fit_columns(&summaries)) {
            // Groups side by side, and below each other where they do not fit.
            let mut rows: Vec<Vec<String>> = Vec::new();
            for lines in columns.iter().map(Columns::lines) {
                match rows.last_mut() {
                    Some(row) if row[0].chars().count() + lines[0].chars().count() <= WIDTH => {
                        row.iter_mut().zip(lines).for_each(|(row, line)| row.push_str(&line));
                    }
                    _ => rows.push(
                        names.iter().zip(lines).map(|(name, line)| format!("{name:name_width$}{line}")).collect(),
                    ),
                }
            }
            for (k, row) in rows.iter().enumerate() {
                if k == 0 {
                    writeln!(f, "{between}{heading}")?;
                    between = "\n";
                }
                row.iter().try_for_each(|line| writeln!(f, "{}", line.trim_end()))?;
            }
        }
        match &self.reference {
            Some(ReferenceCount { method, agreed, disagreed }) if *disagreed > 0 => writeln!(
                f,
                "{method} is no reference where its own runs disagree, in {disagreed} of {}: distances are over {agreed}.",
                agreed + disagreed
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{TwinSettings, simulate_set};
    use crate::random::{Stream, StreamRng};
    use ndarray::{Array3, Axis, s};
    use rand_distr::{Distribution, StandardNormal};
    use serde_json::Value;

    /// Three methods on twins: samples around the truth, a point without samples, and a reference.
    fn case(count: usize) -> (Problem, Vec<Vec<Analysis>>) {
        let settings = TwinSettings { sites: 4, times: 4, assimilated_times: 3, ..TwinSettings::default() };
        let problem = simulate_set(&settings, &(0..count as u64).collect::<Vec<_>>()).unwrap();
        let analysis = |method: &str, p: usize, samples: usize| {
            let mut rng = StreamRng::new(p as u64, Stream::Posterior);
            let noise = Array3::from_shape_simple_fn((20, 4, 4), || StandardNormal.sample(&mut rng));
            let all: Array3<f64> = noise + problem.truth_of(p).unwrap() + 0.3;
            Analysis {
                method: method.into(),
                mean: all.mean_axis(Axis(0)).unwrap(),
                std: all.std_axis(Axis(0), 1.0),
                samples: all.slice(s![..samples, .., ..]).to_owned(),
                records: Vec::new(),
                summary: String::new(),
                seconds: 1.5,
            }
        };
        let methods = [("VI-4DVAR", 20), ("point", 0), ("gold", 20)];
        let analyses =
            methods.map(|(method, samples)| (0..count).map(|p| analysis(method, p, samples)).collect::<Vec<_>>());
        (problem, analyses.to_vec())
    }

    #[test]
    fn table_of_repeated_twins_is_as_wide_as_a_terminal_and_says_what_it_counts() {
        let (problem, analyses) = case(12);
        let mut agreed = [true; 12];
        agreed[4] = false;
        let table = ScoreTable::new(&problem, &analyses, Some(Reference { method: 2, agreed: &agreed }));
        let text = table.to_string();
        println!("{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let rows = |name: &str| -> Vec<String> {
            text.lines().filter(|l| l.starts_with(&format!("{name} "))).map(String::from).collect()
        };
        let vi = table.methods[0].summary();
        let rmse = vi.rmse.unwrap().initial;
        let cell = format!(" {:.3} ± {:.3} ", rmse.mean, rmse.standard_error.unwrap());
        assert!(rows("VI-4DVAR")[0].contains(&cell) && rows("VI-4DVAR")[0].ends_with(" 1.50"), "{text}");
        // Nothing stands where there are no samples; a reference has no distance to itself.
        assert!(rows("point")[2].split_whitespace().skip(1).all(|cell| cell == "-"), "{text}");
        assert!(rows("gold")[4].split_whitespace().skip(1).all(|cell| cell == "-"), "{text}");
        assert!(
            text.ends_with("gold is no reference where its own runs disagree, in 1 of 12: distances are over 11.\n")
        );
        assert_eq!(vi.distance_mean.unwrap().window.count, 11);
        // The same mean and deviation as the reference's: all methods share them here.
        assert_eq!(vi.distance_mean.unwrap().window.mean, 0.0);
    }

    #[test]
    fn table_of_one_twin_has_plain_numbers() {
        let (problem, mut analyses) = case(1);
        analyses.iter_mut().for_each(|a| a[0].seconds = f64::NAN);
        let text = ScoreTable::new(&problem, &analyses, Some(Reference { method: 2, agreed: &[false] })).to_string();
        assert!(!text.contains('±') && !text.contains("seconds") && !text.contains("Distance to"), "{text}");
        assert!(text.contains("in 1 of 1: distances are over 0"), "{text}");
        let unknown = Problem { truth: None, ..problem };
        let text = ScoreTable::new(&unknown, &analyses, None).to_string();
        assert!(text.contains("mean posterior sd") && !text.contains("RMSE") && !text.contains("CRPS"), "{text}");
        assert_eq!(ScoreTable::default().to_string(), "");
    }

    #[test]
    fn scores_do_not_depend_on_sets_or_threads() {
        let (problem, analyses) = case(6);
        let agreed = [true, false, true, true, false, true];
        let whole = ScoreTable::new(&problem, &analyses, Some(Reference { method: 2, agreed: &agreed }));
        let mut parts = ScoreTable::default();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| {
            for p in 0..6 {
                let one: Vec<_> = analyses.iter().map(|method| vec![method[p].clone()]).collect();
                let reference = Reference { method: 2, agreed: &agreed[p..=p] };
                parts.add(&problem.single(p), &one, Some(reference));
            }
        });
        assert_eq!((whole.twins, &whole.reference), (parts.twins, &parts.reference));
        for (a, b) in whole.methods.iter().zip(&parts.methods) {
            assert_eq!(a.twins, b.twins);
        }
        assert_eq!((whole.methods[0].seconds, parts.methods[0].seconds), (1.5, 9.0));
    }

    #[test]
    fn json_has_the_documented_layout() {
        let (problem, analyses) = case(12);
        let agreed = [true; 12];
        let table = ScoreTable::new(&problem, &analyses, Some(Reference { method: 2, agreed: &agreed }));
        let json: Value = serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
        let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(&json), "methods reference twins");
        assert_eq!(json["reference"], serde_json::json!({"method": "gold", "agreed": 12, "disagreed": 0}));
        let (vi, point) = (&json["methods"][0], &json["methods"][1]);
        assert_eq!(keys(vi), "method scores");
        let all = "cost_fit coverage_50 coverage_90 crps distance_covariance distance_mean distance_std energy fit parameters rank \
                   reference_coverage_90 rmse spread spread_skill std variogram verdict";
        assert_eq!((keys(&vi["scores"]).as_str(), keys(&point["scores"]).as_str()), (all, all));
        let rmse = table.methods[0].summary().rmse.unwrap();
        assert_eq!(
            vi["scores"]["rmse"]["forecast"],
            serde_json::json!({
                "mean": rmse.forecast.unwrap().mean, "standard_error": rmse.forecast.unwrap().standard_error, "count": 12
            })
        );
        let histogram = "band_high band_low chi_squared counts expected p_value";
        assert_eq!(keys(&vi["scores"]["rank"]["window"]), histogram);
        assert_eq!((&point["scores"]["crps"], &vi["scores"]["cost_fit"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn verdicts_are_counted_in_the_table() {
        let (problem, mut analyses) = case(12);
        let verdict = |trust: Trust| crate::method::Record::scalar("verdict", "0, 1 or 2", trust.number());
        for (k, analysis) in analyses[0].iter_mut().enumerate() {
            let trust = if k < 5 { Trust::MeanAndSpread } else { Trust::Neither };
            analysis.records.push(verdict(trust));
        }
        let mut agreed = [true; 12];
        agreed[4] = false;
        let table = ScoreTable::new(&problem, &analyses, Some(Reference { method: 2, agreed: &agreed }));
        let own = table.methods[0].summary().verdict.unwrap();
        // The samples are those of the reference itself, and cover it.
        assert_eq!((own.mean_and_spread.said, own.mean_and_spread.judged, own.mean_and_spread.right), (5, 4, 4));
        assert_eq!((own.mean_and_spread.truth, own.neither.said, own.neither.right), (11, 7, 0));
        assert_eq!(table.methods[1].summary().verdict, None);
        let text = table.to_string();
        println!("{text}");
        let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("Verdicts")).collect();
        let cells = |row: &str| row.split_whitespace().skip(1).map(String::from).collect::<Vec<_>>().join(" ");
        assert_eq!(
            (cells(rows[3]).as_str(), cells(rows[4]).as_str()),
            ("5 4 11 0 0 0 7 0 0", "- - - - - - - - -"),
            "{text}"
        );
        let block = &table.fits()[0];
        assert!(block.heading.starts_with("Verdicts") && block.columns[0] == "trust mean and spread: said");
        assert_eq!((block.rows.len(), block.rows[0].1.join(" ").as_str()), (3, "5 4 11 0 0 0 7 0 0"));
        assert!(!ScoreTable::new(&problem, &analyses[1..], None).to_string().contains("Verdicts"));
        let single: Vec<_> = analyses.iter().map(|all| vec![all[0].clone()]).collect();
        assert!(!ScoreTable::new(&problem.single(0), &single, None).to_string().contains("Verdicts"));
        let alone = ScoreTable::new(&problem, &analyses[..1], None).to_string();
        assert!(alone.lines().last().unwrap().split_whitespace().eq("VI-4DVAR 5 0 7".split(' ')), "{alone}");
    }

    #[test]
    fn minimum_of_the_cost_is_judged_by_the_assimilated_observations() {
        let (problem, mut analyses) = case(2);
        analyses[0][1].records.push(crate::method::Record::scalar("twice_minimum_cost", "2 J", 5.0));
        let fit = scores(&problem, 1, &analyses[0][1], None).cost_fit.unwrap();
        assert_eq!((fit.twice_minimum, fit.observations), (5.0, problem.assimilated_count(1)));
        assert_eq!(scores(&problem, 0, &analyses[0][0], None).cost_fit, None);
    }
}
