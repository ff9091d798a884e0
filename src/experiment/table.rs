//! The table of scores that ends an experiment.

use crate::diagnostics::Scores;
use crate::method::Analysis;
use crate::problem::Problem;
use std::fmt;

/// Scores of several methods on one problem, or averaged over several. Displays as a table for people.
#[derive(Clone, Debug, Default)]
pub struct ScoreTable {
    /// One row per method.
    pub rows: Vec<ScoreRow>,
    /// Twins in it.
    twins: usize,
}

/// One method's line.
#[derive(Clone, Debug)]
pub struct ScoreRow {
    /// The method's name.
    pub method: String,
    /// Its scores.
    pub scores: Scores,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl ScoreTable {
    /// Scores against the truth, averaged over the twins of the set; no rows where there is no truth. `analyses` has
    /// one entry per method, each with one analysis per problem.
    pub fn new(problem: &Problem, analyses: &[Vec<Analysis>]) -> Self {
        let row = |method: &Vec<Analysis>| {
            let scores: Option<Vec<_>> = method.iter().enumerate().map(|(p, a)| scores(problem, p, a)).collect();
            let first = method.first()?;
            Some(ScoreRow { method: first.method.clone(), scores: Scores::average(&scores?), seconds: first.seconds })
        };
        Self { rows: analyses.iter().filter_map(row).collect(), twins: problem.count() }
    }

    /// Takes in another set of twins, assimilated by the same methods.
    pub fn add(&mut self, problem: &Problem, analyses: &[Vec<Analysis>]) {
        let more = Self::new(problem, analyses);
        let (old, new) = (self.twins as f64, more.twins as f64);
        if self.rows.is_empty() {
            *self = more;
            return;
        }
        for (row, more) in self.rows.iter_mut().zip(more.rows) {
            row.seconds += more.seconds;
            row.scores = Scores::average(&[row.scores, more.scores]);
        }
        let _ = (old, new);
    }
}

/// Scores of the analysis of problem `p`, where its truth is known.
pub fn scores(problem: &Problem, p: usize, analysis: &Analysis) -> Option<Scores> {
    let truth = problem.truth_of(p)?;
    Some(Scores::new(analysis.mean.view(), analysis.std.view(), truth, problem.window.assimilated_times))
}

impl fmt::Display for ScoreTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let name = self.rows.iter().map(|r| r.method.len()).max().unwrap_or(0);
        writeln!(f, "{:name$}      RMSE of the mean          mean posterior sd", "")?;
        writeln!(f, "{:name$}   t = 0  window forecast    t = 0  window forecast  seconds", "")?;
        for ScoreRow { method, scores: s, seconds } in &self.rows {
            let forecast = |value: Option<f64>| value.map_or_else(|| "-".to_string(), |v| format!("{v:.3}"));
            writeln!(
                f,
                "{method:name$} {:7.3} {:7.3} {:>8} {:8.3} {:7.3} {:>8} {seconds:8.2}",
                s.rmse_initial,
                s.rmse_window,
                forecast(s.rmse_forecast),
                s.std_initial,
                s.std_window,
                forecast(s.std_forecast),
            )?;
        }
        Ok(())
    }
}
