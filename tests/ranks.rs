//! Ranks: the same bytes for any number of them, of every operation on both engines. Here they are threads of one process; over
//! MPI, with the command line, in `tests/mpi.rs`.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::{PerProblem, Recipe};
use ndarray::{Array2, Array3};
use std::cell::RefCell;
use vi4dvar::engine::{
    AdamStep, AffineMap, Backend, Costs, Draw, Engine, EngineSettings, Keep, Listed, LoadedProblem, MOST_KEPT, Members,
    Precision, Ranks, Row, Scale, Terms, adapters,
};
use vi4dvar::error::Error;
use vi4dvar::problem::{PointFunction, Problem};
use vi4dvar::random::Stream;

/// Whether there is a GPU to test on; a failure where one is demanded and missing.
fn has_gpu() -> bool {
    let found = !adapters().is_empty();
    assert!(found || std::env::var("VI4DVAR_REQUIRE_GPU").is_err(), "VI4DVAR_REQUIRE_GPU=1, and no adapter was found");
    found
}

/// Three windows with data, backgrounds, errors of the model and seeds of their own, and parameters to estimate.
fn recipe() -> Recipe {
    Recipe {
        seed: 77,
        sites: 8,
        times: 6,
        function: PointFunction::Square,
        errors: Some((2, false)),
        estimated: true,
        problems: 3,
        per_problem: PerProblem::ALL,
        ..Recipe::default()
    }
}

/// What a problem set says through every operation, as bits.
struct Said<'a> {
    loaded: LoadedProblem,
    problem: &'a Problem,
    bits: Vec<u64>,
}

impl Said<'_> {
    fn note<'v>(&mut self, numbers: impl IntoIterator<Item = &'v f64>) {
        self.bits.extend(numbers.into_iter().map(|v| v.to_bits()));
    }

    fn note_costs(&mut self, costs: &Costs) {
        self.note(costs.background.iter().chain(&costs.observation));
        self.bits.extend(costs.diverged.iter().map(|d| u64::from(*d)));
    }

    fn rows(&mut self, members: Members, directions: &Array2<f64>, forcing: &Array3<f64>) {
        let trajectory = self.loaded.forecast(members).unwrap();
        self.note(&trajectory);
        let costs = self.loaded.cost(members, Terms::ALL).unwrap();
        self.note_costs(&costs);
        let gradients = self.loaded.gradient(members, Terms::ALL).unwrap();
        self.note_costs(&gradients.costs);
        self.note(&gradients.gradient);
        let tangent = self.loaded.tangent(members, directions.view()).unwrap();
        self.note(&tangent);
        let adjoint = self.loaded.adjoint(members, forcing.view()).unwrap();
        self.note(&adjoint);
    }

    fn draws(&mut self, scale: Scale, count: usize) {
        let mean = self.problem.control_means();
        let draw = Draw { map: AffineMap { mean, scale }, stream: Stream::MonteCarlo, iteration: 3, count };
        for moments in self.loaded.moments(&draw, Terms::ALL).unwrap() {
            self.bits.extend([moments.count as u64, moments.diverged as u64]);
            self.note([&moments.cost_background, &moments.cost_observation, &moments.cost_deviation]);
            let arrays = [&moments.gradient, &moments.gradient_squared, &moments.epsilon, &moments.epsilon_squared];
            arrays.into_iter().chain([&moments.gradient_epsilon]).for_each(|a| self.note(a));
            moments.pattern.arrays().into_iter().for_each(|a| self.note(a));
        }
        for keep in [Keep::Best(5), Keep::Best(400), Keep::Below(60.0)] {
            for selection in self.loaded.select(&draw, Terms { background: false, observation: true }, keep).unwrap() {
                self.bits.extend(selection.member.iter().map(|m| u64::from(*m)));
                self.bits.extend(&selection.histogram.counts);
                self.note(&selection.cost_observation);
                self.note([&selection.log_weight_sum, &selection.log_weight_square_sum]);
            }
        }
    }

    /// Members that stay, of which some are given up on the way, until the last ranks have none.
    fn resident(&mut self, states: &Array2<f64>, rows: &[Row]) {
        let listed = Listed { states: states.view(), rows, amplitude: 1.0 };
        let units = self.problem.control_stds();
        let mut resident = self.loaded.settle(listed, states.view(), units.view()).unwrap();
        let step = |k: i32| AdamStep {
            rate: 0.02,
            beta1: 0.9,
            beta2: 0.99,
            mean_scale: 1.0 / (1.0 - 0.9f64.powi(k)),
            square_scale: 1.0 / (1.0 - 0.99f64.powi(k)),
            epsilon: 1e-8,
        };
        for k in 0..4 {
            self.loaded.adam(&mut resident, &[step(2 * k + 1), step(2 * k + 2)], Terms::ALL).unwrap();
            let seen = self.loaded.inspect(&mut resident, Terms::ALL).unwrap();
            self.note_costs(&seen.costs);
            self.note(&seen.gradient_norm);
            let count = resident.rows().len();
            let keep: Vec<usize> = (0..count).filter(|place| place % 7 != 2 && (k < 2 || *place < count / 3)).collect();
            self.loaded.gather(&mut resident, &keep).unwrap();
        }
        let states = self.loaded.states(&resident).unwrap();
        self.note(&states);
        let means = self.loaded.running_means(&resident).unwrap();
        means.iter().for_each(|a| self.note(a));
    }
}

/// All that an engine over so many ranks says, and how often they worked together.
fn say(settings: &EngineSettings, ranks: usize, count: usize, drawn: usize) -> (Vec<u64>, u64) {
    let recipe = recipe();
    let problem = recipe.build();
    let engine = Engine::over(settings, &Ranks::threads(ranks).unwrap()).unwrap();
    let mut said = Said { loaded: engine.load(&problem).unwrap(), problem: &problem, bits: Vec::new() };
    let given = recipe.members(&problem, count);
    let rows: Vec<Row> = (0..given.nrows())
        .map(|k| Row { problem: (k / count) as u32, member: (k % count * 3 + 1) as u32 })
        .filter(|row| row.problem != 1 || row.member < 40)
        .collect();
    let states = given.slice(ndarray::s![..rows.len(), ..]).to_owned();
    let (directions, forcing) = (recipe.directions(given.nrows()), recipe.forcing(given.nrows()));
    said.rows(Members::Given(given.view()), &directions, &forcing);
    let some = |a: &Array2<f64>| a.slice(ndarray::s![..rows.len(), ..]).to_owned();
    let listed = Listed { states: states.view(), rows: &rows, amplitude: 0.7 };
    let of_rows = forcing.slice(ndarray::s![..rows.len(), .., ..]).to_owned();
    said.rows(Members::Listed(listed), &some(&directions), &of_rows);
    said.resident(&states, &rows);
    let control = recipe.control();
    let width = |p: usize, i: usize| 0.1 + 0.01 * (p + i) as f64;
    said.draws(Scale::Diagonal(Array2::from_shape_fn((3, control), |(p, i)| width(p, i))), drawn);
    let lower = |(p, i, j): (usize, usize, usize)| match i.cmp(&j) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => width(p, i),
        std::cmp::Ordering::Greater => 0.01 / (1 + i - j) as f64,
    };
    said.draws(Scale::Lower(Array3::from_shape_fn((3, control, control), lower)), drawn);
    let factor =
        |sign: f64| Array3::from_shape_fn((3, control, 2), |(p, i, k)| sign * 0.02 * ((p + 2 * i + k) as f64).sin());
    let diagonal = Array2::from_shape_fn((3, control), |(p, i)| width(p, i));
    said.draws(Scale::LowRank { diagonal, left: factor(1.0), right: factor(-0.5) }, drawn);
    (said.bits, engine.ranks().traffic().operations)
}

fn same_for_any_number(settings: &EngineSettings, counts: &[usize], count: usize, drawn: usize) {
    let (alone, operations) = say(settings, 1, count, drawn);
    assert_eq!(operations, 0);
    for &ranks in counts {
        let (bits, operations) = say(settings, ranks, count, drawn);
        assert!(operations > 30, "{ranks} ranks worked together {operations} times");
        let differ = bits.iter().zip(&alone).position(|(a, b)| a != b);
        assert_eq!((bits.len(), differ), (alone.len(), None), "{ranks} ranks, {settings:?}");
    }
}

#[test]
fn every_operation_is_the_same_for_any_number_of_ranks_cpu() {
    for precision in [Precision::F32, Precision::F64] {
        let settings = EngineSettings { backend: Backend::Cpu, precision, ..EngineSettings::default() };
        same_for_any_number(&settings, &[2, 3, 4, 7], 75, 1500);
        // Problems smaller than a vector of lanes.
        same_for_any_number(&settings, &[2, 3], 30, 5);
    }
}

#[test]
fn every_operation_is_the_same_for_any_number_of_ranks_gpu() {
    if !has_gpu() {
        return;
    }
    let settings = EngineSettings { backend: Backend::Gpu, ..EngineSettings::default() };
    // Runs of blocks have 4,096 members.
    same_for_any_number(&settings, &[2, 3], 200, 9000);
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let refusal = |backend, device| {
        let settings = EngineSettings { backend, device: Some(device), ..EngineSettings::default() };
        Engine::new(&settings).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(refusal(Backend::Cpu, 0).contains("none, or a GPU"));
    if has_gpu() {
        assert_eq!(refusal(Backend::Gpu, 0), "");
        assert!(refusal(Backend::Gpu, 1000).contains("0 to "), "{}", refusal(Backend::Gpu, 1000));
    }
}

#[test]
fn counters_are_those_of_all_ranks() {
    let recipe = recipe();
    let problem = recipe.build();
    let steps = |ranks: usize| {
        let settings = EngineSettings { backend: Backend::Cpu, ..EngineSettings::default() };
        let engine = Engine::over(&settings, &Ranks::threads(ranks).unwrap()).unwrap();
        let mut loaded = engine.load(&problem).unwrap();
        let members = recipe.members(&problem, 50);
        loaded.gradient(Members::Given(members.view()), Terms::ALL).unwrap();
        let counters = loaded.counters();
        (counters.model_steps, counters.adjoint_steps)
    };
    assert_eq!(steps(1), steps(3));
}

#[test]
fn an_error_on_the_first_rank_ends_a_selection_on_all_and_the_next_is_whole() {
    let recipe = recipe();
    let problem = recipe.build();
    let ranks = Ranks::threads(3).unwrap();
    let settings = EngineSettings { backend: Backend::Cpu, ..EngineSettings::default() };
    let mut loaded = Engine::over(&settings, &ranks).unwrap().load(&problem).unwrap();
    let control = recipe.control();
    let scale = Scale::Diagonal(Array2::from_elem((3, control), 0.2));
    let map = AffineMap { mean: problem.control_means(), scale };
    let draw = Draw { map, stream: Stream::Abc, iteration: 0, count: 400_000 };
    let terms = Terms { background: false, observation: true };
    for _ in 0..3 {
        let calls = RefCell::new(0);
        let mut watch = |done: usize| {
            *calls.borrow_mut() += 1;
            assert!(done > 0);
            if *calls.borrow() > 1 { Err(Error::Interrupted { state: None }) } else { Ok(()) }
        };
        let outcome = loaded.select_watched(&draw, terms, Keep::Best(10), &mut watch);
        assert!(matches!(outcome, Err(Error::Interrupted { .. })));
        let small = Draw { count: 5000, ..draw.clone() };
        assert_eq!(loaded.select(&small, terms, Keep::Best(10)).unwrap()[2].count, 5000);
    }
    // More than can be kept in all, though not on any rank: the same refusal.
    let many = Draw { count: MOST_KEPT / 3 + 1000, ..draw };
    let refusal = loaded.select(&many, terms, Keep::Below(f64::INFINITY)).err().map(|e| e.to_string());
    assert!(refusal.as_ref().is_some_and(|text| text.contains("threshold")), "{refusal:?}");
}

#[test]
fn numbers_of_ranks_that_cannot_be_are_refused() {
    for count in [0, 1025] {
        assert!(Ranks::threads(count).unwrap_err().to_string().contains("1 to 1024"));
    }
    let ranks = Ranks::threads(3).unwrap();
    assert_eq!(ranks.first(2).unwrap().count(), 2);
    assert!(ranks.first(4).unwrap_err().to_string().contains("1 to 3"));
    assert!(ranks.first(0).is_err());
}
