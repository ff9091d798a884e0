//! Small files of each kind that is read, and what is in them.

use ndarray::{Array1, Array2, Array3, arr1};
use netcdf3::{DataSet, DataVector, FileWriter, Version};
use std::path::Path;
use tempfile::TempDir;
use vi4dvar::error::Result;
use vi4dvar::method::vae_var::{ErrorOrigin, Network};
use vi4dvar::method::{Analysis, Record, Vae};
use vi4dvar::model::Model;
use vi4dvar::neural::TrainingHistory;
use vi4dvar::output::Attributes;
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ModelError, ObservationOperator, PointFunction, Problem, Window,
};

pub const SITES: usize = 6;

pub const TIMES: usize = 5;

/// Numbers without a pattern that a transposition would leave alone.
pub fn wavy(i: usize) -> f64 {
    (1.0 + i as f64 * 0.7).sin() * 3.0
}

/// A small problem with a mask, a diagonal B and a truth.
pub fn problem() -> Problem {
    Problem {
        model: Model::Lorenz96,
        parameters: Array2::from_elem((1, 1), 8.25),
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: TIMES, assimilated_times: 4, steps_per_time: 3, dt: 0.01 },
        background: Background {
            mean: Array2::from_shape_fn((1, SITES), |(_, i)| wavy(i)),
            error: ErrorCovariance::Diagonal(Array2::from_shape_fn((1, SITES), |(_, i)| 0.5 + 0.1 * i as f64)),
            scale: Array1::ones(1),
        },
        operator: ObservationOperator { function: PointFunction::Square, block_size: 1 },
        observations: Array3::from_shape_fn((1, TIMES, SITES), |(_, t, i)| {
            if (t + i) % 3 == 0 { f64::NAN } else { wavy(t * SITES + i) }
        }),
        observation_std: Array3::from_shape_fn((1, TIMES, SITES), |(_, t, i)| {
            if (t + i) % 3 == 0 { -1.0 } else { 0.1 + 0.01 * (t * SITES + i) as f64 }
        }),
        weights: Array2::ones((1, TIMES)),
        seeds: vec![7],
        truth: Some(Array3::from_shape_fn((1, TIMES, SITES), |(_, t, i)| wavy(100 + t * SITES + i))),
    }
}

pub fn covariance() -> Array2<f64> {
    Array2::from_shape_fn((SITES, SITES), |(i, j)| 2.0 * (-(i as f64 - j as f64).powi(2)).exp())
}

pub fn full_b(mut p: Problem) -> Problem {
    p.background.error = ErrorCovariance::Full(vec![CovarianceFactor::new(covariance()).unwrap()]);
    p
}

/// With errors of the model and a forcing that is estimated.
pub fn weak(mut p: Problem, full: bool) -> Problem {
    let covariance = if full {
        ErrorCovariance::Full(vec![CovarianceFactor::new(covariance() * 0.1).unwrap()])
    } else {
        ErrorCovariance::Diagonal(Array2::from_shape_fn((1, SITES), |(_, i)| 0.1 * i as f64))
    };
    p.model_error = Some(ModelError { covariance, interval: if full { 2 } else { 9 } });
    p.parameter_std = Some(Array2::from_elem((1, 1), 0.5));
    p.true_parameters = Some(Array2::from_elem((1, 1), 8.75));
    p
}

pub fn block_average(mut p: Problem) -> Problem {
    p.operator = ObservationOperator { function: PointFunction::Softplus, block_size: 2 };
    p.observations = Array3::from_shape_fn((1, TIMES, SITES / 2), |(_, t, i)| wavy(t * 31 + i));
    p.observation_std = Array3::from_elem((1, TIMES, SITES / 2), 0.3);
    p
}

pub fn analysis() -> Analysis {
    Analysis {
        method: "VI-4DVAR".into(),
        mean: Array2::from_shape_fn((TIMES, SITES), |(t, i)| wavy(t * SITES + i)),
        std: Array2::from_shape_fn((TIMES, SITES), |(t, i)| 0.1 + (t * SITES + i) as f64),
        samples: Array3::from_shape_fn((2, TIMES, SITES), |(s, t, i)| wavy(s * 1000 + t * SITES + i)),
        records: vec![
            Record::new("elbo", "evidence lower bound", &["iteration"], arr1(&[-3.0, f64::NAN, -1.0])),
            Record::new("posterior_covariance", "covariance", &["site", "site_2"], covariance()),
            Record::scalar("minimum_cost", "cost at the minimum", 12.5),
        ],
        summary: "Stopped after 3 iterations; trust it.".into(),
        seconds: 1.0,
    }
}

pub fn stamps() -> Attributes {
    let mut attributes = Attributes::new();
    attributes.set("version", "0.1.0").set("adapter", "").set("learning_rate", 0.05).set("batch", 64usize);
    attributes
}

pub fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// What was learned of errors, by convolutions around a ring.
pub fn learned() -> Vae {
    let layer = |rows: usize, columns: usize| Array2::from_shape_fn((rows, columns), |(i, j)| 0.1 * wavy(7 * i + j));
    let network = |outputs: usize| Network {
        places: SITES,
        weights: vec![layer(3, 2), layer(2, outputs)],
        biases: vec![Array1::zeros(2), Array1::zeros(outputs)],
        skip: Array2::from_shape_fn((SITES, SITES * outputs), |(i, j)| if j == i * outputs { 0.9 } else { 0.0 }),
    };
    let (mean, covariance, kl) = (Array1::zeros(SITES), Array2::eye(SITES), Array1::ones(SITES));
    let (training, held_out) = (vec![8.0, 7.5], vec![8.2, 7.9]);
    let history = TrainingHistory { training, held_out, before: 9.0, best: 2, stopped_early: false };
    let mut vae =
        Vae::new(mean, covariance.clone(), covariance, Some(network(2)), network(1), 0.2, kl, history).unwrap();
    vae.origin = Some(ErrorOrigin { model: Model::Lorenz96, window: 1 });
    vae
}

/// A file as another program would write it, to be edited into every kind of wrong.
pub struct Draft {
    pub dimensions: Vec<(&'static str, usize)>,
    variables: Vec<(&'static str, Vec<&'static str>, DataVector)>,
    variable_attributes: Vec<(&'static str, &'static str, DataVector)>,
    attributes: Vec<(&'static str, DataVector)>,
    pub unlimited: Option<&'static str>,
}

impl Draft {
    pub fn new() -> Self {
        let p = problem();
        let observed = vec!["time", "site"];
        Self {
            dimensions: vec![("time", TIMES), ("site", SITES)],
            variables: vec![
                ("time", vec!["time"], DataVector::F64((0..TIMES).map(|t| p.window.time(t)).collect())),
                ("background", vec!["site"], DataVector::F64(p.background.mean.iter().copied().collect())),
                ("background_std", vec!["site"], DataVector::F64(p.background.std_of(0).to_vec())),
                ("observation", observed.clone(), DataVector::F64(p.observations.iter().copied().collect())),
                ("observation_std", observed, DataVector::F64(p.observation_std.iter().copied().collect())),
            ],
            variable_attributes: vec![],
            attributes: vec![
                ("model", text("lorenz96")),
                ("forcing", real(8.25)),
                ("dt", real(0.01)),
                ("steps_per_time", whole(3)),
                ("assimilated_times", whole(4)),
                ("observation_operator", text("square")),
            ],
            unlimited: None,
        }
    }

    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|v| v.0 != name);
        self.attributes.retain(|a| a.0 != name);
        self
    }

    pub fn attribute(self, name: &'static str, value: DataVector) -> Self {
        let mut draft = self.without(name);
        draft.attributes.push((name, value));
        draft
    }

    pub fn variable(self, name: &'static str, dimensions: &[&'static str], values: DataVector) -> Self {
        let mut draft = self.without(name);
        draft.variables.push((name, dimensions.to_vec(), values));
        draft
    }

    pub fn note(mut self, variable: &'static str, name: &'static str, value: DataVector) -> Self {
        self.variable_attributes.push((variable, name, value));
        self
    }

    pub fn dimension(mut self, name: &'static str, size: usize) -> Self {
        self.dimensions.retain(|d| d.0 != name);
        self.dimensions.push((name, size));
        self
    }

    /// The doubles of a variable, edited.
    pub fn edit(mut self, name: &str, change: impl Fn(&mut Vec<f64>)) -> Self {
        match self.variables.iter_mut().find(|v| v.0 == name) {
            Some((_, _, DataVector::F64(values))) => change(values),
            _ => panic!("no doubles named {name}"),
        }
        self
    }

    pub fn write(&self, path: &Path) {
        let mut set = DataSet::new();
        for (name, size) in &self.dimensions {
            if self.unlimited == Some(name) {
                set.set_unlimited_dim(name, *size)
            } else {
                set.add_fixed_dim(name, *size)
            }
            .unwrap();
        }
        for (name, value) in &self.attributes {
            match value.clone() {
                DataVector::U8(v) => set.add_global_attr_u8(name, v),
                DataVector::I32(v) => set.add_global_attr_i32(name, v),
                DataVector::F32(v) => set.add_global_attr_f32(name, v),
                DataVector::F64(v) => set.add_global_attr_f64(name, v),
                other => panic!("no draft has an attribute of type {:?}", other.data_type()),
            }
            .unwrap();
        }
        for (name, dimensions, values) in &self.variables {
            set.add_var(name, dimensions, values.data_type()).unwrap();
        }
        for (variable, name, value) in &self.variable_attributes {
            set.add_var_attr_f64(variable, name, value.get_f64().unwrap().to_vec()).unwrap();
        }
        let mut file = FileWriter::open(path).unwrap();
        file.set_def(&set, Version::Classic, 0).unwrap();
        for (name, _, values) in &self.variables {
            match values {
                DataVector::I8(v) => file.write_var_i8(name, v),
                DataVector::U8(v) => file.write_var_u8(name, v),
                DataVector::I16(v) => file.write_var_i16(name, v),
                DataVector::I32(v) => file.write_var_i32(name, v),
                DataVector::F32(v) => file.write_var_f32(name, v),
                DataVector::F64(v) => file.write_var_f64(name, v),
            }
            .unwrap();
        }
        file.close().unwrap();
    }

    pub fn read(&self) -> Result<Problem> {
        let directory = temporary();
        let path = directory.path().join("draft.nc");
        self.write(&path);
        Problem::read(&path)
    }
}

pub fn text(text: &str) -> DataVector {
    DataVector::U8(text.into())
}

pub fn real(number: f64) -> DataVector {
    DataVector::F64(vec![number])
}

pub fn whole(number: i32) -> DataVector {
    DataVector::I32(vec![number])
}
