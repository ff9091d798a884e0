//! Whether a fitted q can be trusted, in one plain sentence.
//!
//! Importance weights of q's own draws say how much of the posterior's mass lies in q's intervals and how far its mean is
//! off; k-hat says how much of the posterior the draws have met at all. What no draw of q can see, another mode or a fit to
//! a spurious minimum, is left to the minima that descents reach. The limits were set on prior twins of `isda-16-prior`,
//! the same with the identity operator, and the same with less background noise, seeds 1 to 50, against the reference.

use super::{Corrected, CostFit};
use serde::{Deserialize, Serialize};

/// The share of the posterior's mass in q's 90 % intervals, averaged over the components, from and up to which its spread
/// is to be trusted.
pub const TRUSTED_COVERAGE: [f64; 2] = [0.85, 0.95];
/// Distance of the means in posterior deviations (root mean square over the components) up to which q's mean is to be
/// trusted: it makes the error of the mean 4 % larger, for sqrt(1 + 0.3^2) = 1.04.
pub const TRUSTED_MEAN_GAP: f64 = 0.3;
/// Unseen share of the posterior above which the weights do not vouch for the spread. On the twins the error of the
/// corrected coverage has a deviation of 0.01 to 0.02 below it.
const UNSEEN_FOR_SPREAD: f64 = 0.25;
/// Unseen share above which they do not vouch for the mean: it is less sensitive to the tails.
const UNSEEN_FOR_MEAN: f64 = 0.5;
/// The error of the correction for the unseen share, as a share of it (scatter on the twins).
const CORRECTION_ERROR: f64 = 0.5;
/// P(chi-squared >= 2 J) below which a minimum is spurious. A true one is called that once in ten thousand; spurious
/// ones of the case study have 2 J above 500 for 90 observations, which is 1e-60.
const SPURIOUS: f64 = 1e-4;
/// Cost by which another minimum may be higher and still be a mode that q must not miss: exp(-3) is 5 % of the mass,
/// where both are equally wide.
const MODE: f64 = 3.0;
/// Deviations from q's own minimum, at the component where it is farthest, from which on a minimum is another mode: that of
/// a q that covers both is so wide that they are within 2.
const ELSEWHERE: f64 = 4.0;
/// Factor by which q's deviation may be off at a single component: coverage is a mean over all, in which one that is too
/// wide hides one that is too narrow.
const TRUSTED_STD_RATIO: f64 = 2.0;
/// Share of diverged draws above which q's spread is wrong: it reaches where the model cannot go.
const DIVERGED_AT_MOST: f64 = 0.01;

/// What of a fit can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Neither mean nor spread.
    Neither,
    /// The mean, not the spread.
    MeanOnly,
    /// Both.
    MeanAndSpread,
}

impl Trust {
    /// All of them, from least to most.
    pub const ALL: [Self; 3] = [Self::Neither, Self::MeanOnly, Self::MeanAndSpread];

    /// 0, 1 or 2, as result files have it.
    pub fn number(self) -> f64 {
        f64::from(self as u8)
    }

    /// What [`Self::number`] gave; `None` for anything else.
    pub fn from_number(number: f64) -> Option<Self> {
        Self::ALL.into_iter().find(|trust| trust.number() == number)
    }

    /// What can be trusted in truth of a q whose 90 % intervals hold this share of a reference posterior, and whose mean is
    /// so far from that of the reference, in its deviations: both at t = 0, over all sites.
    pub fn by_reference(coverage: f64, distance_of_mean: f64) -> Self {
        let [low, high] = TRUSTED_COVERAGE;
        if (low..=high).contains(&coverage) {
            Self::MeanAndSpread
        } else if distance_of_mean <= TRUSTED_MEAN_GAP {
            Self::MeanOnly
        } else {
            Self::Neither
        }
    }

    /// "trust the mean only".
    pub fn words(self) -> &'static str {
        match self {
            Self::Neither => "trust neither",
            Self::MeanOnly => "trust the mean only",
            Self::MeanAndSpread => "trust the mean and the spread",
        }
    }
}

/// A minimum of the cost other than the one that a descent from q's mean reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OtherMinimum {
    /// How much lower its cost is than that of q's own minimum.
    pub gain: f64,
    /// How far it is from q's own minimum, at the component where it is farthest, in the larger of q's deviation and the
    /// corrected one.
    pub distance: f64,
}

/// What a verdict is made from.
#[derive(Clone, Copy, Debug)]
pub struct VerdictInput<'a> {
    /// Shape of the weights' tail: see [`Psis`](super::Psis).
    pub k_hat: f64,
    /// Importance draws, S.
    pub draws: usize,
    /// Of these diverged, with weight 0.
    pub diverged: usize,
    /// What the smoothed weights say about q.
    pub corrected: &'a Corrected,
    /// The minimum that a descent from q's mean reaches, against chi-squared; `None` where it is not known.
    pub cost_fit: Option<CostFit>,
    /// Minima that other starts reached.
    pub other_minima: &'a [OtherMinimum],
    /// What the fit itself knows to be missing.
    pub fault: Option<&'a str>,
    /// Root mean square over the components of (q's mean - its own minimum) / Laplace deviation there, where both are
    /// known: vouches for the mean where the weights cannot.
    pub minimum_distance: Option<f64>,
}

/// What of a fit can be trusted, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What can be trusted.
    pub trust: Trust,
    /// The verdict and its reason: "trust the mean only: ...".
    pub sentence: String,
    /// Share of the posterior's mass that so many draws from q are expected not to have met: see [`unseen_share`].
    pub unseen: f64,
    /// Share of the posterior's mass in q's 90 % intervals, corrected by the weights and for the unseen share.
    pub coverage: f64,
    /// Its standard error.
    pub coverage_error: f64,
}

/// A verdict against what a reference posterior says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedVerdict {
    /// The verdict.
    pub said: Trust,
    /// What can be trusted in truth; `None` without a reference.
    pub truth: Option<Trust>,
}

/// [`JudgedVerdict`] over repeated twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VerdictSummary {
    /// "Trust the mean and the spread".
    pub mean_and_spread: VerdictCount,
    /// "Trust the mean only".
    pub mean_only: VerdictCount,
    /// "Trust neither".
    pub neither: VerdictCount,
}

/// How often a verdict was said, and how often rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VerdictCount {
    /// Twins of which it was said.
    pub said: usize,
    /// Of those the twins with a reference.
    pub judged: usize,
    /// Of those the twins of which it is true.
    pub right: usize,
    /// Twins of which it is true, whatever was said.
    pub truth: usize,
}

impl VerdictSummary {
    /// `None` where there are no verdicts.
    pub fn new(verdicts: &[JudgedVerdict]) -> Option<Self> {
        let count = |trust: Trust| {
            let of = |f: &dyn Fn(&JudgedVerdict) -> bool| verdicts.iter().filter(|v| f(v)).count();
            VerdictCount {
                said: of(&|v| v.said == trust),
                judged: of(&|v| v.said == trust && v.truth.is_some()),
                right: of(&|v| v.said == trust && v.truth == Some(trust)),
                truth: of(&|v| v.truth == Some(trust)),
            }
        };
        (!verdicts.is_empty()).then(|| Self {
            mean_and_spread: count(Trust::MeanAndSpread),
            mean_only: count(Trust::MeanOnly),
            neither: count(Trust::Neither),
        })
    }
}

/// The share of the posterior's mass beyond the largest of S weights that follow a Pareto law of shape k: S^(k - 1). With
/// P(w > t) = t^(-1/k) the largest is about t = S^k, and weights above t have the share t^(1 - 1/k) of their sum. 1 from
/// k = 1 on.
pub fn unseen_share(k_hat: f64, draws: usize) -> f64 {
    (draws as f64).powf(k_hat.clamp(0.0, 1.0) - 1.0)
}

impl Verdict {
    /// The verdict.
    pub fn new(input: &VerdictInput) -> Self {
        let VerdictInput { corrected, k_hat, draws, .. } = *input;
        let unseen = unseen_share(k_hat, draws);
        // The unseen mass is where q has hardly any draws, in the tails: mostly outside of the intervals. On the twins the
        // share outside is larger by 1 / (1 - unseen) than the weights have it.
        let outside = 1.0 - corrected.coverage;
        let coverage = (1.0 - outside / (1.0 - unseen)).max(0.0);
        let coverage_error = corrected.coverage_error.hypot(CORRECTION_ERROR * unseen * outside);
        let (trust, reason) = match (input.disqualified(), input.mean_fault(unseen)) {
            (Some(reason), _) | (None, Some(reason)) => (Trust::Neither, reason),
            (None, None) => match input.spread_fault(unseen, coverage, coverage_error) {
                Some(reason) => (Trust::MeanOnly, reason),
                None => (Trust::MeanAndSpread, format!("its 90 % intervals hold {}", mass(coverage, coverage_error))),
            },
        };
        Self { trust, sentence: format!("{}: {reason}", trust.words()), unseen, coverage, coverage_error }
    }
}

impl VerdictInput<'_> {
    /// Why q is in the wrong place altogether.
    fn disqualified(&self) -> Option<String> {
        if let Some(fault) = self.fault {
            return Some(fault.into());
        }
        let modes = self.other_minima.iter().filter(|m| m.distance > ELSEWHERE && m.gain > -MODE);
        if let Some(OtherMinimum { gain, distance }) = modes.max_by(|a, b| a.gain.total_cmp(&b.gain)) {
            let what = if *gain > MODE { "a better minimum" } else { "another minimum, as good" };
            let cost = match gain {
                gain if gain.abs() < 0.05 => "the same".into(),
                gain if *gain < 0.0 => format!("{:.1} higher", -gain),
                gain => format!("{gain:.1} lower"),
            };
            return Some(format!("another start found {what}: its cost is {cost}, {distance:.0} sd away"));
        }
        let fit = self.cost_fit.filter(|fit| fit.p_value < SPURIOUS)?;
        Some(format!(
            "at its minimum 2 J is {:.0} for {} observations: a spurious minimum, or errors stated too small",
            fit.twice_minimum, fit.observations
        ))
    }

    /// Why not to trust the mean.
    fn mean_fault(&self, unseen: f64) -> Option<String> {
        if unseen > UNSEEN_FOR_MEAN {
            return match self.minimum_distance {
                Some(distance) if distance <= TRUSTED_MEAN_GAP => None,
                Some(distance) => Some(format!("{}, and its mean is {distance:.2} sd from its minimum", self.blind())),
                None => Some(self.blind()),
            };
        }
        let Corrected { mean_gap, mean_gap_error, .. } = *self.corrected;
        // The scatter of the corrected mean is in the gap itself.
        let gap = (mean_gap.powi(2) - mean_gap_error.powi(2).min(mean_gap.powi(2))).sqrt();
        let trusted = gap + mean_gap_error <= TRUSTED_MEAN_GAP;
        (!trusted).then(|| format!("its mean is {gap:.2} ± {mean_gap_error:.2} sd off"))
    }

    /// Why not to trust the spread.
    fn spread_fault(&self, unseen: f64, coverage: f64, error: f64) -> Option<String> {
        let [low, high] = TRUSTED_COVERAGE;
        if unseen > UNSEEN_FOR_SPREAD {
            return Some(self.blind());
        }
        let share = self.diverged as f64 / self.draws as f64;
        if share > DIVERGED_AT_MOST {
            return Some(format!("{:.0} % of its draws diverged", 100.0 * share));
        }
        let off = |ratio: &f64| ratio.ln().abs();
        let ratios = self.corrected.std_ratio.iter().enumerate();
        // (NaN counts as the largest.)
        let worst = ratios.max_by(|(_, a), (_, b)| off(a).total_cmp(&off(b)));
        if let Some((site, ratio)) =
            worst.filter(|(_, ratio)| off(ratio).is_nan() || off(ratio) > TRUSTED_STD_RATIO.ln())
        {
            return Some(format!("at site {site} its deviation is {ratio:.2} times the posterior's"));
        }
        let mass = mass(coverage, error);
        match () {
            () if coverage < low => Some(format!("it is too narrow, its 90 % intervals hold {mass}")),
            () if coverage > high => Some(format!("it is too wide, its 90 % intervals hold {mass}")),
            () if !(coverage - error >= low && coverage + error <= high) => {
                Some(format!("its 90 % intervals hold {mass}, too near the limit"))
            }
            () => None,
        }
    }

    fn blind(&self) -> String {
        let Self { k_hat, draws, .. } = self;
        format!("k-hat is {k_hat:.2}, so {draws} draws of it miss much of the posterior")
    }
}

/// "90.1 ± 0.3 % of the posterior".
fn mass(coverage: f64, error: f64) -> String {
    format!("{:.1} ± {:.1} % of the posterior", 100.0 * coverage, 100.0 * error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::{Psis, testing::normals};
    use ndarray::{Array1, Axis};

    fn corrected(coverage: f64, mean_gap: f64) -> Corrected {
        Corrected {
            mean: Array1::zeros(1),
            std: Array1::ones(1),
            component_coverage: Array1::from_elem(1, coverage),
            std_ratio: Array1::ones(1),
            coverage,
            coverage_error: 0.002,
            mean_gap,
            mean_gap_error: 0.03,
            std_gap: 0.0,
        }
    }

    fn verdict(coverage: f64, mean_gap: f64, k_hat: f64, change: impl FnOnce(&mut VerdictInput)) -> (Trust, String) {
        let corrected = corrected(coverage, mean_gap);
        let mut input = VerdictInput {
            k_hat,
            draws: 1_000_000,
            diverged: 0,
            corrected: &corrected,
            cost_fit: CostFit::new(95.0, 90),
            other_minima: &[],
            fault: None,
            minimum_distance: None,
        };
        change(&mut input);
        let verdict = Verdict::new(&input);
        assert!(verdict.sentence.starts_with(verdict.trust.words()), "{}", verdict.sentence);
        println!("{}", verdict.sentence);
        (verdict.trust, verdict.sentence)
    }

    #[test]
    fn verdict_gives_its_reason() {
        use Trust::{MeanAndSpread, MeanOnly, Neither};
        let same = |_: &mut VerdictInput| {};
        let found = |m: &'static [OtherMinimum]| move |i: &mut VerdictInput| i.other_minima = m;
        let check = |(trust, sentence): (Trust, String), expected: Trust, words: &str| {
            assert!(trust == expected && sentence.contains(words), "{sentence}");
        };
        check(verdict(0.90, 0.05, 0.6, same), MeanAndSpread, "90.0 ± 0.2 % of the posterior");
        check(verdict(0.80, 0.05, 0.6, same), MeanOnly, "too narrow");
        check(verdict(0.97, 0.05, 0.6, same), MeanOnly, "too wide");
        check(verdict(0.8505, 0.05, 0.2, same), MeanOnly, "too near the limit");
        let uneven: &Corrected =
            Box::leak(Box::new(Corrected { std_ratio: ndarray::array![1.0, 0.4, 2.4], ..corrected(0.90, 0.05) }));
        check(verdict(0.90, 0.05, 0.6, |i| i.corrected = uneven), MeanOnly, "at site 1 its deviation is 0.40 times");
        check(verdict(0.90, 0.05, 0.6, |i| i.fault = Some("more modes")), Neither, "more modes");
        check(verdict(0.90, 0.5, 0.6, same), Neither, "sd off");
        check(verdict(0.90, 0.05, 0.6, |i| i.diverged = 20_000), MeanOnly, "2 % of its draws diverged");
        // Half the coverage's margin is gone at k-hat 0.8, of which 6 % of the mass is unseen, and all of it at 0.93.
        check(verdict(0.90, 0.05, 0.8, same), MeanAndSpread, "89.3 ± 0.4 %");
        check(verdict(0.855, 0.05, 0.8, same), MeanOnly, "too narrow");
        check(verdict(0.90, 0.05, 0.93, same), MeanOnly, "k-hat is 0.93");
        check(verdict(0.90, 0.05, 1.3, same), Neither, "k-hat is 1.30");
        check(verdict(0.90, 0.05, f64::INFINITY, same), Neither, "k-hat is inf");
        check(verdict(0.90, 0.05, 1.3, |i| i.minimum_distance = Some(0.1)), MeanOnly, "k-hat is 1.30");
        check(verdict(0.90, 0.05, 1.3, |i| i.minimum_distance = Some(0.7)), Neither, "0.70 sd from its minimum");
        check(verdict(0.90, 0.05, 0.6, |i| i.cost_fit = CostFit::new(560.0, 90)), Neither, "spurious");
        check(verdict(0.90, 0.05, 0.6, |i| i.cost_fit = CostFit::new(20.0, 90)), MeanAndSpread, "");
        let lower = found(&[OtherMinimum { gain: -1.0, distance: 9.0 }, OtherMinimum { gain: 35.0, distance: 12.0 }]);
        check(verdict(0.90, 0.05, 0.6, lower), Neither, "a better minimum: its cost is 35.0 lower, 12 sd away");
        let equal = found(&[OtherMinimum { gain: -1.0, distance: 9.0 }]);
        check(verdict(0.90, 0.05, 0.6, equal), Neither, "as good: its cost is 1.0 higher, 9 sd away");
        let harmless = found(&[OtherMinimum { gain: -5.0, distance: 9.0 }, OtherMinimum { gain: 0.1, distance: 2.0 }]);
        check(verdict(0.90, 0.05, 0.6, harmless), MeanAndSpread, "");
        // Whatever is not a number is not trusted.
        check(verdict(f64::NAN, 0.05, 0.6, same), MeanOnly, "");
        check(verdict(0.90, f64::NAN, 0.6, same), Neither, "");
    }

    #[test]
    fn unseen_share_is_that_of_a_pareto_law() {
        assert_eq!([unseen_share(1.0, 100), unseen_share(7.0, 100), unseen_share(-1.0, 100)], [1.0, 1.0, 0.01]);
        // Of w = u^-k the mass above the expected largest of S, where u = 1/S, is the integral up to there, against 1.
        let (k, draws, cells) = (0.6f64, 1000, 2_000_000);
        let mean = |end: f64| -> f64 {
            (0..cells).map(|i| ((i as f64 + 0.5) / cells as f64 * end).powf(-k)).sum::<f64>() * end / cells as f64
        };
        assert!((unseen_share(k, draws) / (mean(1.0 / draws as f64) / mean(1.0)) - 1.0).abs() < 0.01);
    }

    /// Gaussian q against N(0, I) in eight dimensions, from draws to sentence. A q of deviation s covers
    /// 2 Phi(1.645 s) - 1 of each site: 85 % at 0.875, 95 % at 1.19.
    #[test]
    fn verdict_of_gaussians_is_what_their_coverage_says() {
        use Trust::{MeanAndSpread, MeanOnly, Neither};
        let cases = [
            (1.0, 0.0, MeanAndSpread),
            (0.93, 0.0, MeanAndSpread),
            (1.12, 0.1, MeanAndSpread),
            (0.8, 0.0, MeanOnly),
            (1.35, 0.0, MeanOnly),
            (1.0, 0.5, Neither),
            (0.1, 0.0, Neither),
        ];
        for (s, shift, expected) in cases {
            let z = normals(4, (1, 60_000, 8)).remove_axis(Axis(0));
            let states = z.mapv(|z| shift + s * z);
            let log = |z: &f64| 0.5 * (z * z - (shift + s * z).powi(2));
            let log_weights = z.mapv(|z| log(&z)).sum_axis(Axis(1)).to_vec();
            let psis = Psis::new(&log_weights);
            let corrected = Corrected::new(states.view(), &psis.weights);
            let verdict = Verdict::new(&VerdictInput {
                k_hat: psis.k_hat,
                draws: 60_000,
                diverged: 0,
                corrected: &corrected,
                cost_fit: None,
                other_minima: &[],
                fault: None,
                minimum_distance: None,
            });
            println!("s = {s}, shift {shift}, k-hat {:.2}: {}", psis.k_hat, verdict.sentence);
            assert_eq!(verdict.trust, expected, "s = {s}, shift {shift}: {}", verdict.sentence);
        }
    }

    /// A posterior of two equal modes, and a q that is one of them: every weight is the same, so k-hat, coverage and ELBO are
    /// as good as can be, and only a start elsewhere knows better. With its minimum a q that covers both is not reproached.
    #[test]
    fn verdict_on_one_of_two_modes_takes_the_other_minimum() {
        let z = normals(5, (1, 50_000, 2)).remove_axis(Axis(0));
        let log_density = |x: &[f64]| {
            let mode = |m: f64| -0.5 * (((x[0] - m) / 0.5).powi(2) + x[1].powi(2));
            (mode(3.0).exp() + mode(-3.0).exp()).ln()
        };
        let judge = |states: ndarray::Array2<f64>, log_q: Vec<f64>, std: f64, minima: bool| {
            let rows = states.outer_iter().zip(&log_q);
            let log_weights: Vec<f64> = rows.map(|(x, q)| log_density(x.as_slice().unwrap()) - q).collect();
            let psis = Psis::new(&log_weights);
            let corrected = Corrected::new(states.view(), &psis.weights);
            let other = [OtherMinimum { gain: 0.0, distance: 6.0 / std }];
            Verdict::new(&VerdictInput {
                k_hat: psis.k_hat,
                draws: 50_000,
                diverged: 0,
                corrected: &corrected,
                cost_fit: None,
                other_minima: if minima { &other } else { &[] },
                fault: None,
                minimum_distance: None,
            })
        };
        let one = || {
            let states =
                ndarray::Array2::from_shape_fn(
                    z.dim(),
                    |(k, i)| if i == 0 { 3.0 + 0.5 * z[[k, 0]] } else { z[[k, 1]] },
                );
            (states, z.outer_iter().map(|z| -0.5 * z.dot(&z)).collect::<Vec<_>>())
        };
        let both = || {
            let sign = |k: usize| if k.is_multiple_of(2) { 3.0 } else { -3.0 };
            let x = |(k, i): (usize, usize)| if i == 0 { sign(k) + 0.5 * z[[k, 0]] } else { z[[k, 1]] };
            let states = ndarray::Array2::from_shape_fn(z.dim(), x);
            let log_q = states.outer_iter().map(|x| log_density(x.as_slice().unwrap())).collect();
            (states, log_q)
        };
        let ((states, log_q), (all, all_q)) = (one(), both());
        assert_eq!(judge(states.clone(), log_q.clone(), 0.5, false).trust, Trust::MeanAndSpread);
        let told = judge(states, log_q, 0.5, true);
        assert!(told.trust == Trust::Neither && told.sentence.contains("12 sd away"), "{}", told.sentence);
        let std = all.column(0).std(0.0);
        assert_eq!(judge(all, all_q, std, true).trust, Trust::MeanAndSpread);
    }

    #[test]
    fn verdicts_are_counted_against_the_reference() {
        use Trust::{MeanAndSpread, MeanOnly, Neither};
        assert_eq!(
            [(0.85, 9.0), (0.8, 0.3), (0.96, 0.4)].map(|(c, d)| Trust::by_reference(c, d)),
            [MeanAndSpread, MeanOnly, Neither]
        );
        let judged = |said, truth| JudgedVerdict { said, truth };
        let all = [
            judged(MeanAndSpread, Some(MeanAndSpread)),
            judged(MeanAndSpread, Some(MeanOnly)),
            judged(MeanAndSpread, None),
            judged(MeanOnly, Some(MeanAndSpread)),
            judged(Neither, Some(Neither)),
        ];
        let summary = VerdictSummary::new(&all).unwrap();
        let counts = |c: VerdictCount| [c.said, c.judged, c.right, c.truth];
        assert_eq!(counts(summary.mean_and_spread), [3, 2, 1, 2]);
        assert_eq!((counts(summary.mean_only), counts(summary.neither)), ([1, 1, 0, 1], [1, 1, 1, 1]));
        assert_eq!(VerdictSummary::new(&[]), None);
    }

    #[test]
    fn trust_travels_as_a_number() {
        for trust in Trust::ALL {
            assert_eq!(Trust::from_number(trust.number()), Some(trust));
        }
        assert_eq!((Trust::MeanAndSpread.number(), Trust::from_number(f64::NAN)), (2.0, None));
    }
}
