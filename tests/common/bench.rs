//! An engine under test: each operation against the oracle, and every number that a batch gives.

use crate::common::{Quantity, Recipe, Report, Tolerance, Truth, compare, compare_scaled, plain_f32_loss, tolerance};
use ndarray::{Array1, Array2, Array3, ArrayView, Axis, Dimension, s};
use vi4dvar::engine::{
    AffineMap, Backend, Costs, Draw, Engine, EngineSettings, Gradients, Keep, LoadedProblem, Members, Moments,
    Precision, Scale, Selection, Terms,
};
use vi4dvar::problem::Problem;
use vi4dvar::random::Stream;
use vi4dvar::validation::oracle;

/// An engine under test.
pub struct Bench {
    pub settings: EngineSettings,
    pub engine: Engine,
    /// Whether its problems are drawn rather than chosen. Some of those lose more in f32 than the fixed bound allows
    /// however they are computed, so that what a plain evaluation of the oracle loses is the bound where it is larger.
    pub random: bool,
}

impl Bench {
    pub fn precision(&self) -> Precision {
        self.settings.precision
    }

    pub fn is_gpu(&self) -> bool {
        self.settings.backend == Backend::Gpu
    }

    pub fn bound(&self, quantity: Quantity) -> Tolerance {
        tolerance(quantity, self.precision())
    }

    /// The bound over a short window, given what a plain f32 evaluation of the oracle loses.
    pub fn short_bound(&self, loss: impl FnOnce() -> f64) -> Tolerance {
        let fixed = self.bound(Quantity::Short);
        if !(self.random && self.precision() == Precision::F32) {
            return fixed;
        }
        let plain = plain_f32_loss(loss());
        if plain.bound > fixed.bound { plain } else { fixed }
    }

    pub fn load(&self, problem: &Problem) -> LoadedProblem {
        self.engine.load(problem).expect("a sound problem loads")
    }

    /// The same kind of engine with other settings.
    pub fn variant(&self, change: impl FnOnce(&mut EngineSettings)) -> Engine {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Engine::new(&settings).expect("a variant of a working engine")
    }
}

pub fn check_trajectory(bench: &Bench, report: &mut Report, recipe: &Recipe, count: usize) {
    let problem = recipe.build();
    let members = recipe.members(&problem, count);
    let got = bench.load(&problem).forecast(Members::Given(members.view())).unwrap();
    let truth = Truth::new(&problem, &members);
    let want = truth.trajectories::<f64>();
    let case = format!("{} M {count}", recipe.label());
    let bound = bench.short_bound(|| loss(truth.trajectories::<f32>().view(), want.view()));
    compare("trajectory", &case, got.view(), want.view(), bound).note(report);
}

pub fn check_cost(bench: &Bench, report: &mut Report, recipe: &Recipe, count: usize) {
    let problem = recipe.build();
    let members = recipe.members(&problem, count);
    let got = bench.load(&problem).cost(Members::Given(members.view()), Terms::ALL).unwrap();
    let truth = Truth::new(&problem, &members);
    let want = truth.costs::<f64>();
    let bound = bench.short_bound(|| loss_of_costs(&truth.costs::<f32>(), &want));
    compare_costs_within(bound, report, &format!("{} M {count}", recipe.label()), &got, &want);
}

pub fn compare_costs(bench: &Bench, report: &mut Report, case: &str, got: &Costs, want: &(Array1<f64>, Array1<f64>)) {
    compare_costs_within(bench.bound(Quantity::Short), report, case, got, want);
}

pub fn compare_costs_within(
    bound: Tolerance,
    report: &mut Report,
    case: &str,
    got: &Costs,
    want: &(Array1<f64>, Array1<f64>),
) {
    compare("J_b", case, got.background.view(), want.0.view(), bound).note(report);
    compare("J_o", case, got.observation.view(), want.1.view(), bound).note(report);
    compare("J", case, got.total().view(), (&want.0 + &want.1).view(), bound).note(report);
    let flagged = got.diverged.iter().filter(|d| **d).count();
    report.expect(got.diverged.len() == want.0.len() && flagged == 0, || {
        format!("{case}: {flagged} of {} sound members flagged as diverged", got.diverged.len())
    });
}

pub fn check_gradient(bench: &Bench, report: &mut Report, recipe: &Recipe, count: usize) {
    let problem = recipe.build();
    let members = recipe.members(&problem, count);
    let case = format!("{} M {count}", recipe.label());
    let got = bench.load(&problem).gradient(Members::Given(members.view()), Terms::ALL).unwrap();
    let truth = Truth::new(&problem, &members);
    let want = truth.gradients::<f64>();
    let costs = (want.background.clone(), want.observation.clone());
    let bound = bench.short_bound(|| loss_of_costs(&truth.costs::<f32>(), &costs));
    compare_costs_within(bound, report, &case, &got.costs, &costs);
    let bound = bench.short_bound(|| loss(truth.gradients::<f32>().gradient().view(), want.gradient().view()));
    compare("gradient", &case, got.gradient.view(), want.gradient().view(), bound).note(report);
    if bench.is_gpu() && bench.precision() == Precision::F64 {
        let cpu = Engine::cpu(Precision::F64).unwrap();
        let cpu = cpu.load(&problem).unwrap().gradient(Members::Given(members.view()), Terms::ALL).unwrap();
        compare("gradient, GPU against CPU", &case, got.gradient.view(), cpu.gradient.view(), bound).note(report);
    }
}

/// Tangent and adjoint against the oracle, and against each other.
pub fn check_tangent_adjoint(bench: &Bench, report: &mut Report, recipe: &Recipe, count: usize) {
    let problem = recipe.build();
    let members = recipe.members(&problem, count);
    let (v, w) = (recipe.directions(members.nrows()), recipe.forcing(members.nrows()));
    let case = format!("{} M {count}", recipe.label());
    let truth = Truth::new(&problem, &members);
    let mut loaded = bench.load(&problem);
    let forward = loaded.tangent(Members::Given(members.view()), v.view()).unwrap();
    let want = truth.tangents::<f64>(&v);
    let bound = bench.short_bound(|| loss(truth.tangents::<f32>(&v).view(), want.view()));
    compare("tangent", &case, forward.view(), want.view(), bound).note(report);
    let back = loaded.adjoint(Members::Given(members.view()), w.view()).unwrap();
    let want = truth.adjoints::<f64>(&w);
    let bound = bench.short_bound(|| loss(truth.adjoints::<f32>(&w).view(), want.view()));
    compare("adjoint", &case, back.view(), want.view(), bound).note(report);

    let products = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let size = |a: &[f64]| products(a, a).sqrt();
    for k in 0..members.nrows() {
        let (f, w) = (forward.slice(s![k, .., ..]), w.slice(s![k, .., ..]));
        let (f, w): (Vec<f64>, Vec<f64>) = (f.iter().copied().collect(), w.iter().copied().collect());
        let (b, v) = (back.row(k).to_vec(), v.row(k).to_vec());
        let (left, right) = (Array1::from(vec![products(&w, &f)]), Array1::from(vec![products(&b, &v)]));
        let scale = (size(&w) * size(&f)).max(size(&b) * size(&v));
        let bound = bench.bound(Quantity::DotProduct);
        compare_scaled("dot product", &format!("{case} row {k}"), left.view(), right.view(), scale, bound).note(report);
    }
}

/// A draw around the background, with a scale that differs per site and problem.
pub fn draw(recipe: &Recipe, problem: &Problem, count: usize, iteration: u32) -> Draw {
    let shape = (recipe.problems, recipe.control());
    let means: Vec<_> = (0..recipe.problems).map(|p| recipe.mean(problem, p)).collect();
    let mean = Array2::from_shape_fn(shape, |(p, i)| means[p][i]);
    let scale = Array2::from_shape_fn(shape, |(p, i)| 0.2 + 0.02 * (i % 7) as f64 + 0.05 * (p % 3) as f64);
    Draw { map: AffineMap { mean, scale: Scale::Diagonal(scale) }, stream: Stream::MonteCarlo, iteration, count }
}

/// The diagonal of a draw's scale.
pub fn diagonal(draw: &Draw) -> &Array2<f64> {
    let Scale::Diagonal(scale) = &draw.map.scale else { panic!("a diagonal scale") };
    scale
}

/// The same draw with lower triangular scales, so many of them.
pub fn lower(draw: &Draw, matrices: usize) -> Draw {
    let n = draw.map.mean.ncols();
    let scale = Array3::from_shape_fn((matrices, n, n), |(p, i, j)| match i.cmp(&j) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 0.3 + 0.01 * (i % 5) as f64 + 0.1 * p as f64,
        std::cmp::Ordering::Greater => 0.2 * ((3 * i + 5 * j + p) as f64).sin() / (1 + i - j) as f64,
    });
    Draw { map: AffineMap { mean: draw.map.mean.clone(), scale: Scale::Lower(scale) }, ..draw.clone() }
}

/// The same draw with scales of a diagonal and a low rank.
pub fn low_rank(draw: &Draw, rank: usize) -> Draw {
    let (problems, n) = draw.map.mean.dim();
    let factor = |seed: usize| {
        Array3::from_shape_fn((problems, n, rank), |(p, i, k)| {
            0.2 * ((seed + 7 * p + 3 * i + 11 * k + i * k) as f64).sin() / (1 + k) as f64
        })
    };
    let scale = Scale::LowRank { diagonal: diagonal(draw) * 0.5, left: factor(1), right: factor(2).mapv(|v| 5.0 * v) };
    Draw { map: AffineMap { mean: draw.map.mean.clone(), scale }, ..draw.clone() }
}

/// The same draw with m = 0 and S = I: the normals themselves.
pub fn normals_of(draw: &Draw) -> Draw {
    let shape = draw.map.mean.raw_dim();
    let map = AffineMap { mean: Array2::zeros(shape), scale: Scale::Diagonal(Array2::ones(shape)) };
    Draw { map, ..draw.clone() }
}

/// The initial states drawn, as the engine sees them: `[P * M, sites]`.
pub fn members_of(loaded: &mut LoadedProblem, draw: &Draw) -> Array2<f64> {
    loaded.forecast(Members::Drawn(draw)).unwrap().index_axis(Axis(1), 0).to_owned()
}

/// The controls drawn as the engine sees them, `[P * M, control]`: xi is the gradient of its own prior, a parameter follows
/// from it.
pub fn controls_of(loaded: &mut LoadedProblem, problem: &Problem, draw: &Draw) -> Array2<f64> {
    let states = members_of(loaded, draw);
    let sites = states.ncols();
    if draw.map.mean.ncols() == sites {
        return states;
    }
    let terms = Terms { background: true, observation: false };
    let mut all = loaded.gradient(Members::Drawn(draw), terms).unwrap().gradient;
    all.slice_mut(s![.., ..sites]).assign(&states);
    if let Some(std) = &problem.parameter_std {
        let first = all.ncols() - std.ncols();
        let at = |array: &Array2<f64>, p: usize, k: usize| array[[if array.nrows() == 1 { 0 } else { p }, k]];
        for ((row, k), v) in all.slice_mut(s![.., first..]).indexed_iter_mut() {
            let p = row / draw.count;
            *v = at(&problem.parameters, p, k) + *v * at(std, p, k).powi(2);
        }
    }
    all
}

/// Moments against the oracle's sums over the same members, and against the engine's own gradients.
pub fn check_moments(bench: &Bench, report: &mut Report, recipe: &Recipe, count: usize, terms: Terms) {
    let problem = recipe.build();
    check_moments_of(bench, report, recipe, &problem, &draw(recipe, &problem, count, 3), terms);
}

pub fn check_moments_of(
    bench: &Bench,
    report: &mut Report,
    recipe: &Recipe,
    problem: &Problem,
    drawn: &Draw,
    terms: Terms,
) {
    let count = drawn.count;
    let case = format!("{} {} M {count} {terms:?}", recipe.label(), scale_name(&drawn.map.scale));
    let mut loaded = bench.load(problem);
    let eps = controls_of(&mut loaded, problem, &normals_of(drawn));
    let members = controls_of(&mut loaded, problem, drawn);
    let got = loaded.moments(drawn, terms).unwrap();
    report.expect(got.len() == recipe.problems, || format!("{case}: {} moments", got.len()));
    let own = loaded.gradient(Members::Drawn(drawn), terms).unwrap();
    let truth = Truth::new(problem, &members).gradients::<f64>();
    let (b, o) = (f64::from(u8::from(terms.background)), f64::from(u8::from(terms.observation)));
    let truth_gradient = &truth.background_gradient * b + &truth.observation_gradient * o;
    for (p, got) in got.iter().enumerate() {
        let rows = p * count..(p + 1) * count;
        report.expect(got.count == count && got.diverged == 0, || {
            format!("{case}: count {} and diverged {}, expected {count} and 0", got.count, got.diverged)
        });
        let eps: Vec<Vec<f64>> = rows.clone().map(|k| eps.row(k).to_vec()).collect();
        let costs: Vec<_> = rows.clone().map(|k| (b * truth.background[k], o * truth.observation[k])).collect();
        let gradients: Vec<_> = rows.clone().map(|k| truth_gradient.row(k).to_vec()).collect();
        // The bound on sums in f32 is one for chosen problems; of random ones the gradients are judged, and these sums of them.
        if !(bench.random && bench.precision() == Precision::F32) {
            let want = oracle::sums(&costs, &gradients, &eps);
            compare_sums(report, "moments", &case, got, &want, bench.bound(Quantity::Sums));
            let want = oracle::pattern_sums(&drawn.map.scale, p, &gradients, &eps);
            compare_pattern(report, "pattern", &case, got, &want, bench.bound(Quantity::Sums));
        }
        let costs: Vec<_> = rows.clone().map(|k| (own.costs.background[k], own.costs.observation[k])).collect();
        let gradients: Vec<_> = rows.map(|k| own.gradient.row(k).to_vec()).collect();
        let want = oracle::sums(&costs, &gradients, &eps);
        compare_sums(report, "moments, own", &case, got, &want, bench.bound(Quantity::OwnSums));
        let want = oracle::pattern_sums(&drawn.map.scale, p, &gradients, &eps);
        compare_pattern(report, "pattern, own", &case, got, &want, bench.bound(Quantity::OwnSums));
    }
}

pub fn scale_name(scale: &Scale) -> String {
    match scale {
        Scale::Diagonal(_) => "diagonal".into(),
        Scale::Lower(lower) => format!("{} lower", lower.len_of(Axis(0))),
        Scale::LowRank { left, .. } => format!("rank {}", left.len_of(Axis(2))),
    }
}

/// Sums on the pattern of a scale, each against what it could be at most.
pub fn compare_pattern(
    report: &mut Report,
    kind: &str,
    case: &str,
    got: &Moments,
    want: &[oracle::OuterSum],
    bound: Tolerance,
) {
    let got = got.pattern.arrays();
    report.expect(got.len() == want.len(), || format!("{case}: {} sums, expected {}", got.len(), want.len()));
    for (k, (got, want)) in got.into_iter().zip(want).enumerate() {
        let got: Array1<f64> = got.iter().copied().collect();
        let sums = Array1::from(want.values.clone());
        let kind = format!("{kind}: {k}");
        compare_scaled(&kind, case, got.view(), sums.view(), want.most, bound).note(report);
    }
}

/// Sums may cancel, so each is measured against what it could be at most: by Cauchy-Schwarz from the squares.
pub fn compare_sums(report: &mut Report, kind: &str, case: &str, got: &Moments, want: &oracle::Sums, bound: Tolerance) {
    let largest = |v: &[f64]| v.iter().fold(0.0f64, |a, v| a.max(v.abs()));
    let count = (got.count - got.diverged) as f64;
    let (g2, e2) = (largest(&want.gradient_squared), largest(&want.epsilon_squared));
    let cost = want.cost_background + want.cost_observation;
    let one = |v: f64| vec![v];
    for (name, got, want, scale) in [
        ("J_b", one(got.cost_background), one(want.cost_background), cost),
        ("J_o", one(got.cost_observation), one(want.cost_observation), cost),
        (
            "J deviation",
            one(got.cost_deviation),
            one(want.cost_deviation),
            want.cost_deviation.max(cost * cost / count * 1e-3),
        ),
        ("g", got.gradient.clone(), want.gradient.clone(), (count * g2).sqrt()),
        ("g^2", got.gradient_squared.clone(), want.gradient_squared.clone(), g2),
        ("eps", got.epsilon.clone(), want.epsilon.clone(), (count * e2).sqrt()),
        ("eps^2", got.epsilon_squared.clone(), want.epsilon_squared.clone(), e2),
        ("g eps", got.gradient_epsilon.clone(), want.gradient_epsilon.clone(), (g2 * e2).sqrt()),
    ] {
        let (got, want) = (Array1::from(got), Array1::from(want));
        compare_scaled(&format!("{kind}: {name}"), case, got.view(), want.view(), scale, bound).note(report);
    }
}

/// Notes a failure where two arrays differ in any bit.
pub fn same_bytes<D: Dimension>(report: &mut Report, case: &str, a: ArrayView<f64, D>, b: ArrayView<f64, D>) {
    let differing = a.iter().zip(&b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    report.expect(a.shape() == b.shape() && differing == 0, || {
        let first = a.iter().zip(&b).find(|(a, b)| a.to_bits() != b.to_bits());
        format!("{case}: {differing} of {} values differ, the first {first:?}", a.len())
    });
}

/// Every number that cost, gradient, moments, tangent and adjoint return for one batch, in one array each.
pub fn everything(engine: &Engine, recipe: &Recipe, count: usize) -> Vec<(&'static str, Array1<f64>)> {
    let problem = recipe.build();
    let drawn = draw(recipe, &problem, count, 11);
    let members = recipe.members(&problem, count);
    let given = Members::Given(members.view());
    let (v, w) = (recipe.directions(members.nrows()), recipe.forcing(members.nrows()));
    let mut loaded = engine.load(&problem).unwrap();
    let mut moments = |drawn: &Draw| loaded.moments(drawn, Terms::ALL).unwrap().iter().flat_map(flat_moments).collect();
    let sums = [moments(&drawn), moments(&lower(&drawn, 1)), moments(&low_rank(&drawn, 3)), moments(&drawn)];
    let [plain, on_lower, on_low_rank, again] = sums;
    assert_eq!(plain, again, "moments change once others were computed");
    vec![
        ("forecast", flat(loaded.forecast(given).unwrap().iter())),
        ("cost", flat_costs(&loaded.cost(given, Terms::ALL).unwrap())),
        ("gradient", flat_gradients(&loaded.gradient(given, Terms::ALL).unwrap())),
        ("gradient of drawn members", flat_gradients(&loaded.gradient(Members::Drawn(&drawn), Terms::ALL).unwrap())),
        ("moments", plain),
        ("moments of lower scales", on_lower),
        ("moments of low ranks", on_low_rank),
        ("tangent", flat(loaded.tangent(given, v.view()).unwrap().iter())),
        ("adjoint", flat(loaded.adjoint(given, w.view()).unwrap().iter())),
        ("select", flat_selections(&loaded.select(&drawn, Terms::ALL, Keep::Best(10)).unwrap())),
    ]
}

pub fn flat_selections(selections: &[Selection]) -> Array1<f64> {
    let one = |s: &Selection| -> Vec<f64> {
        let numbers = s.member.iter().map(|m| f64::from(*m)).chain(s.histogram.counts.iter().map(|c| *c as f64));
        let sums = [s.count as f64, s.diverged as f64, s.log_weight_sum, s.log_weight_square_sum];
        numbers.chain(s.cost_background.iter().chain(&s.cost_observation).copied()).chain(sums).collect()
    };
    selections.iter().flat_map(one).collect()
}

pub fn flat<'v>(values: impl Iterator<Item = &'v f64>) -> Array1<f64> {
    values.copied().collect()
}

pub fn flat_costs(costs: &Costs) -> Array1<f64> {
    let flags = costs.diverged.iter().map(|d| f64::from(u8::from(*d)));
    costs.background.iter().chain(&costs.observation).copied().chain(flags).collect()
}

pub fn flat_gradients(gradients: &Gradients) -> Array1<f64> {
    flat_costs(&gradients.costs).into_iter().chain(gradients.gradient.iter().copied()).collect()
}

pub fn flat_moments(m: &Moments) -> Vec<f64> {
    let mut out = vec![m.count as f64, m.diverged as f64, m.cost_background, m.cost_observation, m.cost_deviation];
    for sums in [&m.gradient, &m.gradient_squared, &m.epsilon, &m.epsilon_squared, &m.gradient_epsilon] {
        out.extend(sums);
    }
    out.extend(m.pattern.arrays().into_iter().flatten());
    out
}

pub fn same_everything(report: &mut Report, case: &str, a: &[(&str, Array1<f64>)], b: &[(&str, Array1<f64>)]) {
    for ((operation, a), (_, b)) in a.iter().zip(b) {
        same_bytes(report, &format!("{operation}, {case}"), a.view(), b.view());
    }
}

/// The largest |difference| over the largest |wanted value|.
pub fn loss<D: Dimension>(got: ArrayView<f64, D>, want: ArrayView<f64, D>) -> f64 {
    compare("", "", got, want, Tolerance { bound: f64::INFINITY, reason: "a measurement" }).error()
}

/// The larger of the losses of J_b, J_o and J.
pub fn loss_of_costs(got: &(Array1<f64>, Array1<f64>), want: &(Array1<f64>, Array1<f64>)) -> f64 {
    let terms = [(&got.0, &want.0), (&got.1, &want.1), (&(&got.0 + &got.1), &(&want.0 + &want.1))];
    terms.into_iter().map(|(got, want)| loss(got.view(), want.view())).fold(0.0, f64::max)
}
