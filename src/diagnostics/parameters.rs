//! How well the parameters of a model were estimated.

use super::{Estimate, coverage, rank, ratio_of_squares};
use ndarray::{ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// An estimated parameter against the true one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterQuality<T = f64> {
    /// The parameter's name.
    pub name: String,
    /// Root mean square error of the posterior mean.
    pub rmse: T,
    /// Root of the mean posterior variance.
    pub spread: T,
    /// Share of the true values in the central 50 % interval: see [`coverage()`].
    pub coverage_50: T,
    /// The same for the central 90 %.
    pub coverage_90: T,
}

impl ParameterQuality {
    /// Of each parameter, from samples `[samples, parameters]`; `None` of fewer than two.
    pub fn of_each(names: &[&'static str], samples: ArrayView2<f64>, truth: ArrayView1<f64>) -> Option<Vec<Self>> {
        if samples.nrows() < 2 {
            return None;
        }
        let one = |((name, column), truth): ((&&'static str, ArrayView1<f64>), &f64)| {
            let mut sorted = column.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            let rank = rank(&sorted, *truth);
            Self {
                name: (*name).into(),
                rmse: (column.mean().expect("samples") - truth).abs(),
                spread: column.std(1.0),
                coverage_50: coverage(rank, 0.5),
                coverage_90: coverage(rank, 0.9),
            }
        };
        Some(names.iter().zip(samples.axis_iter(Axis(1))).zip(truth).map(one).collect())
    }

    /// Over repeated twins, the errors and spreads by their squares; `None` where there are none.
    pub(super) fn over(twins: &[&Vec<Self>]) -> Option<Vec<ParameterQuality<Estimate>>> {
        let one = |(k, first): (usize, &Self)| {
            let of = |f: fn(&Self) -> f64| twins.iter().map(move |twin| f(&twin[k]));
            let squares = |f| ratio_of_squares(&of(f).map(|v| (v, 1.0)).collect::<Vec<_>>());
            let mean = |f| Estimate::new(&of(f).collect::<Vec<_>>());
            Some(ParameterQuality {
                name: first.name.clone(),
                rmse: squares(|q| q.rmse)?,
                spread: squares(|q| q.spread)?,
                coverage_50: mean(|q| q.coverage_50)?,
                coverage_90: mean(|q| q.coverage_90)?,
            })
        };
        twins.first()?.iter().enumerate().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn parameters_of_a_worked_example() {
        let samples = array![[7.0, 1.0], [9.0, 3.0], [8.0, 2.0]];
        let truth = array![8.5, 10.0];
        let all = ParameterQuality::of_each(&["a", "b"], samples.view(), truth.view()).unwrap();
        // Errors 0.5 and 8, variances 1 and 1; three samples, four cells: the truths lie in the third and in the last.
        let found: Vec<_> = all.iter().map(|q| (q.name.as_str(), q.rmse, q.spread, q.coverage_50)).collect();
        assert_eq!(found, [("a", 0.5, 1.0, 1.0), ("b", 8.0, 1.0, 0.0)]);
        assert!((all[1].coverage_90 - 0.8).abs() < 1e-15, "{}", all[1].coverage_90);
        let worse = vec![ParameterQuality { rmse: 1.5, ..all[0].clone() }, all[1].clone()];
        let over = ParameterQuality::over(&[&all, &worse]).unwrap();
        let found: Vec<_> = over.iter().map(|q| (q.name.as_str(), q.rmse.mean, q.rmse.count)).collect();
        assert_eq!(found, [("a", 1.25f64.sqrt(), 2), ("b", 8.0, 2)]);
        let one = samples.slice(ndarray::s![..1, ..]);
        assert_eq!(ParameterQuality::of_each(&["a", "b"], one, truth.view()), None);
    }
}
