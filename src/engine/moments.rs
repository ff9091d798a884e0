//! Sums over drawn members: what an ELBO and its gradient need.

use super::Scale;
use super::tree::Merge;
use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

/// Sums over the drawn members of one problem, the diverged ones left out. Arrays are `[control]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Members drawn.
    pub count: usize,
    /// Members that diverged.
    pub diverged: usize,
    /// Sum of J_b.
    pub cost_background: f64,
    /// Sum of J_o.
    pub cost_observation: f64,
    /// Sum of (J - mean of J)^2.
    pub cost_deviation: f64,
    /// Sum of g = dJ/dcontrol.
    pub gradient: Vec<f64>,
    /// Sum of g^2.
    pub gradient_squared: Vec<f64>,
    /// Sum of eps.
    pub epsilon: Vec<f64>,
    /// Sum of eps^2.
    pub epsilon_squared: Vec<f64>,
    /// Sum of g eps, the pattern of a diagonal S.
    pub gradient_epsilon: Vec<f64>,
    /// What the pattern of S needs beyond that.
    pub pattern: PatternSums,
}

/// Sums of products of g and eps on the pattern of S, as [`Scale`] has it, the diverged members left out: all that the
/// gradient of an ELBO with respect to S needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum PatternSums {
    /// Nothing beyond [`Moments::gradient_epsilon`] and [`Moments::epsilon_squared`].
    #[default]
    Diagonal,
    /// Of a lower triangular S. Each `[control, control]`, 0 above the diagonal.
    Lower {
        /// Sum of g eps'.
        gradient_epsilon: Array2<f64>,
        /// Sum of eps eps'.
        epsilon_epsilon: Array2<f64>,
    },
    /// Of S = diag(d) + W Z'. Each `[control, rank]`.
    LowRank {
        /// Sum of g (Z' eps)'.
        gradient_right: Array2<f64>,
        /// Sum of eps (W' g)'.
        epsilon_left: Array2<f64>,
        /// Sum of eps (Z' eps)'.
        epsilon_right: Array2<f64>,
    },
}

impl PatternSums {
    /// Sums over no members yet, for the pattern of `scale`.
    pub(crate) fn zeros(scale: &Scale) -> Self {
        match scale {
            Scale::Diagonal(_) => Self::Diagonal,
            Scale::Lower(lower) => {
                let zeros = || Array2::zeros((lower.len_of(Axis(1)), lower.len_of(Axis(2))));
                Self::Lower { gradient_epsilon: zeros(), epsilon_epsilon: zeros() }
            }
            Scale::LowRank { left, .. } => {
                let zeros = || Array2::zeros((left.len_of(Axis(1)), left.len_of(Axis(2))));
                Self::LowRank { gradient_right: zeros(), epsilon_left: zeros(), epsilon_right: zeros() }
            }
        }
    }

    /// The arrays, in their order.
    pub fn arrays(&self) -> Vec<&Array2<f64>> {
        match self {
            Self::Diagonal => Vec::new(),
            Self::Lower { gradient_epsilon, epsilon_epsilon } => vec![gradient_epsilon, epsilon_epsilon],
            Self::LowRank { gradient_right, epsilon_left, epsilon_right } => {
                vec![gradient_right, epsilon_left, epsilon_right]
            }
        }
    }

    /// The arrays, to be changed.
    pub(crate) fn arrays_mut(&mut self) -> Vec<&mut Array2<f64>> {
        match self {
            Self::Diagonal => Vec::new(),
            Self::Lower { gradient_epsilon, epsilon_epsilon } => vec![gradient_epsilon, epsilon_epsilon],
            Self::LowRank { gradient_right, epsilon_left, epsilon_right } => {
                vec![gradient_right, epsilon_left, epsilon_right]
            }
        }
    }
}

impl Moments {
    /// Sums over no members yet, for the pattern of `scale`.
    pub(crate) fn zeros(control: usize, scale: &Scale) -> Self {
        let zeros = || vec![0.0; control];
        Self {
            gradient: zeros(),
            gradient_squared: zeros(),
            epsilon: zeros(),
            epsilon_squared: zeros(),
            gradient_epsilon: zeros(),
            pattern: PatternSums::zeros(scale),
            ..Self::default()
        }
    }
}

impl Merge for Moments {
    fn merge(&mut self, right: &Self) {
        self.add(right);
    }
}

impl Moments {
    /// Adds the sums over other members.
    pub(crate) fn add(&mut self, block: &Self) {
        let valid = |m: &Moments| (m.count - m.diverged) as f64;
        let (a, b) = (valid(self), valid(block));
        if a > 0.0 && b > 0.0 {
            let mean = |m: &Moments, n: f64| (m.cost_background + m.cost_observation) / n;
            let gap = mean(block, b) - mean(self, a);
            self.cost_deviation += gap * gap * a * b / (a + b);
        }
        self.cost_deviation += block.cost_deviation;
        self.count += block.count;
        self.diverged += block.diverged;
        self.cost_background += block.cost_background;
        self.cost_observation += block.cost_observation;
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.gradient, &block.gradient);
        add(&mut self.gradient_squared, &block.gradient_squared);
        add(&mut self.epsilon, &block.epsilon);
        add(&mut self.epsilon_squared, &block.epsilon_squared);
        add(&mut self.gradient_epsilon, &block.gradient_epsilon);
        for (to, from) in self.pattern.arrays_mut().into_iter().zip(block.pattern.arrays()) {
            *to += from;
        }
    }
}
