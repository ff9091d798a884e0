//! Samples of a posterior: the normals they are made of, and their mean and spread without the diverged ones.

use crate::engine::DIVERGED;
use crate::error::{Error, Result};
use crate::random::{Stream, normals};
use ndarray::{Array2, Array3, ArrayView3, Axis};

/// Share of diverged members from which on an answer means nothing: the default of every method.
pub(super) const MAX_DIVERGED_SHARE: f64 = 0.5;

/// Standard normals of members `first .. first + count` of a stream, as an engine would draw them: `[count, n]`.
pub(super) fn standard_normals(seed: u64, stream: Stream, first: usize, count: usize, n: usize) -> Array2<f64> {
    let mut out = Array2::zeros((count, n));
    for (member, mut row) in (first..).zip(out.outer_iter_mut()) {
        for (block, mut chunk) in row.axis_chunks_iter_mut(Axis(0), 4).enumerate() {
            let z = normals(seed, stream, 0, member as u32, block as u32);
            chunk.iter_mut().zip(z).for_each(|(c, z)| *c = f64::from(z));
        }
    }
    out
}

/// Trajectories sampled from a posterior.
pub(super) struct Samples {
    /// Mean over the samples: `[times, sites]`.
    pub mean: Array2<f64>,
    /// Standard deviation over the samples (divisor one less than their number): `[times, sites]`.
    pub std: Array2<f64>,
    /// Those that did not diverge: `[samples, times, sites]`.
    pub trajectories: Array3<f64>,
    /// How many diverged.
    pub diverged: usize,
}

impl Samples {
    /// Leaves out the trajectories that diverged, and sums up the others.
    ///
    /// # Errors
    /// More than `max_diverged_share` of them, or all but one, diverged.
    pub fn new(all: ArrayView3<f64>, what: &str, max_diverged_share: f64) -> Result<Self> {
        let count = all.len_of(Axis(0));
        let sound = |t: &usize| all.index_axis(Axis(0), *t).iter().all(|x| x.abs() < DIVERGED);
        let kept: Vec<usize> = (0..count).filter(sound).collect();
        let diverged = count - kept.len();
        if kept.len() < 2 || diverged as f64 > max_diverged_share * count as f64 {
            return Err(Error::Diverged { what: format!("the samples of {what}"), diverged, members: count });
        }
        let trajectories = if diverged == 0 { all.to_owned() } else { all.select(Axis(0), &kept) };
        let mean = trajectories.mean_axis(Axis(0)).expect("at least two samples");
        let std = trajectories.std_axis(Axis(0), 1.0);
        Ok(Self { mean, std, trajectories, diverged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn samples_leave_the_diverged_out() {
        let all = array![[[1.0, 2.0]], [[f64::NAN, 0.0]], [[3.0, 6.0]], [[0.0, 1e39]]];
        let s = Samples::new(all.view(), "q", 0.5).unwrap();
        assert_eq!((s.mean, s.diverged), (array![[2.0, 4.0]], 2));
        assert!((&s.std - &array![[2f64.sqrt(), 8f64.sqrt()]]).iter().all(|d| d.abs() < 1e-14));
        assert_eq!(s.trajectories.shape(), [2, 1, 2]);
        assert!(matches!(Samples::new(all.view(), "q", 0.4), Err(Error::Diverged { diverged: 2, members: 4, .. })));
    }

    #[test]
    fn normals_do_not_depend_on_where_a_batch_starts() {
        let all = standard_normals(7, Stream::Posterior, 0, 5, 6);
        assert_eq!(all.row(3), standard_normals(7, Stream::Posterior, 3, 1, 6).row(0));
        assert_eq!(all[[2, 5]], f64::from(normals(7, Stream::Posterior, 0, 2, 1)[1]));
    }
}
