//! Files: round trips, the same bytes on rewriting, and a clear refusal of everything that is not right.

#[allow(dead_code, reason = "each test target uses a part")]
#[path = "common/samples.rs"]
mod samples;

use ndarray::{Array1, Array2, Array3, ArrayD, IxDyn, arr1, arr2};
use netcdf3::{DataVector, FileReader, Version};
use samples::{
    Draft, SITES, TIMES, analysis, block_average, covariance, full_b, learned, problem, real, stamps, temporary, text,
    wavy, weak, whole,
};
use std::fs;
use std::path::Path;
use vi4dvar::engine::{Costs, Gradients};
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::TwinSettings;
use vi4dvar::method::{Analysis, Vae};
use vi4dvar::model::Model;
use vi4dvar::output::{
    AttributeValue, Attributes, check_size, check_writable, read_analysis, read_members, write_analysis,
    write_evaluation, write_members,
};
use vi4dvar::problem::{ErrorCovariance, Problem};

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Equal in value, with NaN equal to NaN.
fn same<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = &'a f64>) -> bool {
    a.into_iter().map(|v| v.to_bits()).eq(b.into_iter().map(|v| v.to_bits()))
}

fn assert_same_problem(a: &Problem, b: &Problem) {
    assert_eq!((a.model, a.window, a.operator, &a.seeds), (b.model, b.window, b.operator, &b.seeds));
    assert_eq!((&a.parameters, &a.weights, &a.background.mean), (&b.parameters, &b.weights, &b.background.mean));
    assert_eq!(&a.truth, &b.truth);
    assert_eq!(a.observations.shape(), b.observations.shape());
    assert!(same(&a.observations, &b.observations));
    assert!(same(&a.observation_std, &b.observation_std));
    assert_eq!(a.background.std_of(0), b.background.std_of(0));
    assert_eq!(a.background.precision_of(0), b.background.precision_of(0));
    assert_eq!((&a.parameter_std, &a.true_parameters), (&b.parameter_std, &b.true_parameters));
    let model_error = |p: &Problem| p.model_error.as_ref().map(|q| (q.covariance.covariance_of(0), q.interval));
    assert_eq!(model_error(a), model_error(b));
}

/// One refusal: exit code 2, one line, and the words that tell what is wrong.
#[track_caller]
fn assert_refused<T>(result: Result<T>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted, expected a refusal with {words:?}") };
    assert_eq!(error.exit_code(), 2, "{error}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

// ---------------------------------------------------------------------------------------------- problem files

#[test]
fn problem_round_trip() {
    let mut weighted = problem();
    weighted.weights[[0, 2]] = 0.0;
    weighted.weights[[0, 3]] = 0.25;
    let mut unobserved = problem();
    unobserved.observations.fill(f64::NAN);
    unobserved.observation_std.fill(f64::NAN);
    let mut without_truth = problem();
    without_truth.truth = None;
    let mut large_seed = problem();
    large_seed.seeds = vec![u64::MAX];
    let mut one_time = problem().single(0);
    one_time.window.times = 1;
    one_time.window.assimilated_times = 1;
    one_time.observations = one_time.observations.slice_move(ndarray::s![.., ..1, ..]);
    one_time.observation_std = one_time.observation_std.slice_move(ndarray::s![.., ..1, ..]);
    one_time.weights = Array2::ones((1, 1));
    one_time.truth = None;

    let mut estimated = problem();
    estimated.parameter_std = Some(Array2::from_elem((1, 1), 0.25));
    let mut perfect = weak(problem(), false);
    perfect.model_error.as_mut().unwrap().covariance = ErrorCovariance::Diagonal(Array2::zeros((1, SITES)));
    let mut elsewhere = problem();
    elsewhere.true_parameters = Some(Array2::from_elem((1, 1), 9.0));

    let mut lorenz63 = TwinSettings { seed: 7, ..TwinSettings::default() }.with_model(Model::Lorenz63);
    lorenz63.parameter_std = [("beta", 0.1), ("sigma", 0.5), ("rho", 1.5)].into();
    lorenz63.model_error_std = Some(0.2);
    let mut lorenz63 = vi4dvar::simulate(&lorenz63).unwrap();
    assert_eq!(lorenz63.parameter_std, Some(ndarray::array![[0.5, 1.5, 0.1]]));
    // Unobserved deviations are not kept.
    ndarray::Zip::from(&mut lorenz63.observation_std).and(&lorenz63.observations).for_each(|std, y| {
        if y.is_nan() {
            *std = -1.0;
        }
    });
    let cases = [
        ("Lorenz-63", lorenz63),
        ("diagonal", problem()),
        ("full", full_b(problem())),
        ("block", block_average(problem())),
        ("full, block", full_b(block_average(problem()))),
        ("weighted", weighted),
        ("unobserved", unobserved),
        ("without truth", without_truth),
        ("large seed", large_seed),
        ("one time", one_time),
        ("diagonal Q", weak(problem(), false)),
        ("full Q and B", weak(full_b(problem()), true)),
        ("Q of nothing", perfect),
        ("forcing estimated", estimated),
        ("true forcing", elsewhere),
    ];
    let directory = temporary();
    for (name, written) in cases {
        let (first, second) = (directory.path().join(format!("{name}.nc")), directory.path().join("again.nc"));
        written.write(&first, &Attributes::new(), false).unwrap();
        let read = Problem::read(&first).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_same_problem(&written, &read);
        read.write(&second, &Attributes::new(), true).unwrap();
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "{name}: other bytes on rewriting");
    }
}

#[test]
fn problem_scale_is_folded_into_b() {
    let directory = temporary();
    for (k, mut scaled) in [problem(), full_b(problem())].into_iter().enumerate() {
        scaled.background.scale = Array1::from_elem(1, 4.0);
        let path = directory.path().join(format!("{k}.nc"));
        scaled.write(&path, &Attributes::new(), false).unwrap();
        let read = Problem::read(&path).unwrap();
        assert_eq!(read.background.scale_of(0), 1.0);
        assert_eq!(read.background.std_of(0), scaled.background.std_of(0));
    }
}

#[test]
fn problem_set_of_several_is_refused() {
    let directory = temporary();
    let mut several = problem();
    several.seeds = vec![1, 2, 3];
    let path = directory.path().join("p.nc");
    assert_refused(several.write(&path, &Attributes::new(), false), &["one problem", "found 3", "single"]);
    assert_refused(write_analysis(&path, &several, &analysis(), &Attributes::new(), false), &["one problem"]);
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn problem_that_cannot_be_is_not_written() {
    let directory = temporary();
    let mut bad = problem();
    bad.background.mean[[0, 0]] = f64::NAN;
    assert_refused(bad.write(directory.path().join("p.nc"), &Attributes::new(), false), &["background", "NaN"]);
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn attributes_of_the_problem_win_over_stamps() {
    let directory = temporary();
    let path = directory.path().join("p.nc");
    let mut attributes = stamps();
    attributes.set("dt", 99.0).set("seed", 1usize);
    problem().write(&path, &attributes, false).unwrap();
    let read = Problem::read(&path).unwrap();
    assert_eq!((read.window.dt, read.seeds[0]), (0.01, 7));
    let file = FileReader::open(&path).unwrap();
    assert_eq!(file.data_set().get_global_attr_as_string("version").as_deref(), Some("0.1.0"));
    assert_eq!(file.data_set().get_global_attr_i32("batch"), Some(&[64][..]));
}

#[test]
fn variables_say_what_they_are() {
    let directory = temporary();
    let path = directory.path().join("a.nc");
    write_analysis(&path, &full_b(problem()), &analysis(), &stamps(), false).unwrap();
    let file = FileReader::open(&path).unwrap();
    assert_eq!(file.version(), Version::Offset64Bit);
    for name in file.data_set().get_var_names() {
        for attribute in ["units", "long_name"] {
            let text = file.data_set().get_var_attr_as_string(&name, attribute).unwrap_or_default();
            assert!(!text.is_empty(), "{name} has no {attribute}");
        }
    }
    assert_eq!(file.data_set().get_var_attr_as_string("time", "units").as_deref(), Some("model time units"));
}

// ------------------------------------------------------------------------------------- problem files from elsewhere

#[test]
fn foreign_file_is_read() {
    let mut expected = problem();
    expected.truth = None;
    expected.seeds = vec![0];
    assert_same_problem(&Draft::new().read().unwrap(), &expected);

    let mut unlimited = Draft::new();
    unlimited.unlimited = Some("time");
    assert_same_problem(&unlimited.read().unwrap(), &expected);

    // Extra variables and attributes do no harm.
    let extra =
        Draft::new().variable("land_mask", &["site"], DataVector::I8(vec![0; SITES])).attribute("title", text("x"));
    assert_same_problem(&extra.read().unwrap(), &expected);
}

#[test]
fn foreign_number_types_are_read() {
    let time = DataVector::F32((0..TIMES).map(|t| (t as f64 * 0.03) as f32).collect());
    let read = Draft::new()
        .variable("time", &["time"], time)
        .variable("background", &["site"], DataVector::I32((0..6).collect()))
        .variable("background_std", &["site"], DataVector::I8(vec![2; SITES]))
        .attribute("steps_per_time", real(3.0))
        .attribute("forcing", whole(8))
        .attribute("dt", DataVector::F64(vec![0.01]))
        .attribute("seed", text("18446744073709551615"))
        .read()
        .unwrap();
    assert_eq!(read.background.mean_of(0).to_vec(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(read.background.std_of(0).to_vec(), [2.0; SITES]);
    assert_eq!((read.window.steps_per_time, read.parameters[[0, 0]], read.seeds[0]), (3, 8.0, u64::MAX));
}

#[test]
fn foreign_missing_values_are_unobserved() {
    let put = |x: f64| Draft::new().edit("observation", move |v| v[1] = x);
    for draft in [
        put(-999.0).note("observation", "_FillValue", real(-999.0)),
        put(-999.0).note("observation", "missing_value", real(-999.0)),
        put(netcdf3::NC_FILL_F64),
    ] {
        let read = draft.read().unwrap();
        assert!(read.observations[[0, 0, 1]].is_nan());
        assert_eq!(read.observations[[0, 0, 2]], wavy(2));
    }
    let hole = Draft::new().edit("background", |v| v[3] = netcdf3::NC_FILL_F64);
    assert_refused(hole.read(), &["background", "NaN", "index 3"]);
}

#[test]
fn foreign_model_errors_and_parameters_are_read() {
    let read = Draft::new()
        .variable("model_error_std", &["site"], DataVector::F32(vec![0.25; SITES]))
        .attribute("model_error_interval", real(3.0))
        .attribute("forcing_std", whole(1))
        .attribute("true_forcing", real(7.5))
        .read()
        .unwrap();
    let q = read.model_error.as_ref().unwrap();
    assert_eq!((q.covariance.std_of(0).to_vec(), q.interval), (vec![0.25; SITES], 3));
    assert_eq!((read.parameter_std, read.true_parameters), (Some(arr2(&[[1.0]])), Some(arr2(&[[7.5]]))));
}

#[test]
fn bad_problem_is_refused() {
    let doubles = |n: usize| DataVector::F64(vec![1.0; n]);
    let errs = || {
        Draft::new()
            .variable("model_error_std", &["site"], DataVector::F64(vec![1.0; SITES]))
            .attribute("model_error_interval", whole(3))
    };
    let errs_full = || {
        errs().dimension("site_2", SITES).variable(
            "model_error_covariance",
            &["site", "site_2"],
            DataVector::F64(covariance().into_iter().collect()),
        )
    };
    let cases: Vec<(Draft, &[&str])> = vec![
        // Variables that are missing, misshapen or of the wrong type.
        (Draft::new().without("background"), &["expected a variable `background`", "found time, "]),
        (Draft::new().without("observation"), &["`observation`"]),
        (Draft::new().without("observation_std"), &["`observation_std`"]),
        (Draft::new().without("time"), &["`time`"]),
        (
            Draft::new().variable("observation", &["site", "time"], doubles(TIMES * SITES)),
            &["`observation`", "expected dimensions (time, site)", "found (site, time)"],
        ),
        (
            Draft::new().variable("background", &["time"], doubles(TIMES)),
            &["`background`", "expected dimensions (site)", "found (time)"],
        ),
        (
            Draft::new().variable("background", &["site"], DataVector::U8(vec![b'x'; SITES])),
            &["`background`", "expected numbers", "found text"],
        ),
        (Draft::new().note("background", "scale_factor", real(0.1)), &["`background`", "packed"]),
        (
            Draft::new()
                .attribute("block_size", whole(2))
                .dimension("block", 4)
                .variable("observation", &["time", "block"], doubles(TIMES * 4))
                .variable("observation_std", &["time", "block"], doubles(TIMES * 4)),
            &["observations", "shape", "3", "4"],
        ),
        (Draft::new().attribute("block_size", whole(4)), &["block_size", "divisor of the 6 sites", "found 4"]),
        (Draft::new().attribute("block_size", whole(0)), &["block_size", "found 0"]),
        (Draft::new().attribute("block_size", whole(2)), &["`observation`", "(time, block)"]),
        // Numbers that cannot be.
        (Draft::new().edit("background", |v| v[2] = f64::NAN), &["background", "finite", "NaN", "index 2"]),
        (Draft::new().edit("background", |v| v[0] = f64::INFINITY), &["background", "finite", "inf"]),
        (Draft::new().edit("background_std", |v| v[1] = 0.0), &["background_std at site 1", "> 0", "found 0"]),
        (Draft::new().edit("background_std", |v| v[1] = -2.0), &["background_std", "found -2"]),
        (Draft::new().edit("background_std", |v| v[1] = f64::NAN), &["background_std", "found NaN"]),
        (Draft::new().edit("observation", |v| v[1] = f64::NEG_INFINITY), &["observation", "-inf"]),
        (
            Draft::new().edit("observation_std", |v| v[1] = 0.0),
            &["observation_std at time 0, observation 1", "> 0", "found 0"],
        ),
        (Draft::new().edit("observation_std", |v| v[1] = f64::NAN), &["observation_std", "found NaN"]),
        (
            Draft::new().variable("truth", &["time", "site"], DataVector::F64(vec![f64::NAN; TIMES * SITES])),
            &["truth", "NaN"],
        ),
        (Draft::new().variable("weight", &["time"], DataVector::F64(vec![-1.0; TIMES])), &["weight", "-1"]),
        // The background error.
        (Draft::new().without("background_std"), &["background_covariance", "neither"]),
        (
            Draft::new().dimension("site_2", SITES).variable(
                "background_covariance",
                &["site", "site_2"],
                doubles(SITES * SITES),
            ),
            &["background_std", "background_covariance", "both"],
        ),
        (
            Draft::new().without("background_std").dimension("site_2", SITES).variable(
                "background_covariance",
                &["site", "site_2"],
                doubles(SITES * SITES),
            ),
            &["background_covariance", "positive definite", "smallest eigenvalue"],
        ),
        (
            Draft::new().without("background_std").dimension("site_2", 3).variable(
                "background_covariance",
                &["site", "site_2"],
                doubles(SITES * 3),
            ),
            &["background_covariance", "square", "6 x 3"],
        ),
        (
            Draft::new()
                .without("background_std")
                .dimension("site_2", SITES)
                .variable(
                    "background_covariance",
                    &["site", "site_2"],
                    DataVector::F64(covariance().into_iter().collect()),
                )
                .edit("background_covariance", |v| v[1] += 0.5),
            &["background_covariance", "symmetric"],
        ),
        // Times.
        (Draft::new().edit("time", |v| v[2] += 0.001), &["`time`", "expected 0.06 at index 2", "steps_per_time"]),
        (Draft::new().edit("time", |v| v[2] = f64::NAN), &["`time`", "NaN"]),
        (Draft::new().edit("time", |v| v.iter_mut().for_each(|t| *t += 5.0)), &["`time`", "expected 0 at index 0"]),
        // Attributes.
        (Draft::new().without("model"), &["`model`", "expected a text", "found none"]),
        (Draft::new().attribute("model", text("lorenz97")), &["model", "one of lorenz96", "lorenz97"]),
        (Draft::new().attribute("model", whole(96)), &["`model`", "expected a text", "found 96"]),
        (
            Draft::new().attribute("observation_operator", text("log")),
            &["observation operator", "one of identity, square", "\"log\""],
        ),
        (Draft::new().without("observation_operator"), &["expected a problem", "`observation_operator`"]),
        (Draft::new().without("forcing"), &["`forcing`", "expected a number", "found none"]),
        (Draft::new().attribute("forcing", text("8")), &["`forcing`", "expected a number", "found \"8\""]),
        (Draft::new().attribute("forcing", real(f64::NAN)), &["model parameters", "NaN"]),
        (Draft::new().attribute("dt", real(0.0)), &["dt", "> 0", "found 0"]),
        (Draft::new().attribute("dt", DataVector::F64(vec![0.01, 0.02])), &["`dt`", "expected a number"]),
        (Draft::new().without("dt"), &["`dt`", "found none"]),
        (Draft::new().attribute("steps_per_time", whole(0)), &["steps_per_time", "at least 1"]),
        (Draft::new().attribute("steps_per_time", real(2.5)), &["`steps_per_time`", "whole number", "found 2.5"]),
        (Draft::new().attribute("steps_per_time", whole(-3)), &["`steps_per_time`", "whole number", "found -3"]),
        (Draft::new().attribute("steps_per_time", real(1e15)), &["2^31 RK4 steps"]),
        (Draft::new().attribute("assimilated_times", whole(6)), &["assimilated_times", "1 to 5", "found 6"]),
        (Draft::new().attribute("assimilated_times", whole(0)), &["assimilated_times", "found 0"]),
        (Draft::new().attribute("seed", real(0.5)), &["`seed`", "whole number", "found 0.5"]),
        (Draft::new().attribute("seed", DataVector::I32(vec![1, 2])), &["`seed`", "whole number"]),
        // Model errors and parameters.
        (errs().without("model_error_interval"), &["`model_error_interval`", "whole number", "found none"]),
        (
            errs().without("model_error_std"),
            &["model_error_std", "model_error_covariance", "attribute `model_error_interval` alone"],
        ),
        (errs_full(), &["model_error_std", "model_error_covariance", "both"]),
        (
            errs_full().without("model_error_std").edit("model_error_covariance", |v| v.fill(1.0)),
            &["model_error_covariance", "positive definite", "smallest eigenvalue"],
        ),
        (
            errs_full().without("model_error_std").edit("model_error_covariance", |v| v[1] += 0.5),
            &["model_error_covariance", "symmetric"],
        ),
        (
            errs().without("model_error_std").variable("model_error_covariance", &["site"], doubles(SITES)),
            &["`model_error_covariance`", "expected dimensions (site, site_2)"],
        ),
        (errs().variable("model_error_std", &["time"], doubles(TIMES)), &["`model_error_std`", "(site)", "(time)"]),
        (errs().edit("model_error_std", |v| v[1] = -0.1), &["model_error_std at site 1", ">= 0", "found -0.1"]),
        (errs().edit("model_error_std", |v| v[1] = f64::NAN), &["model_error_std at site 1", "NaN"]),
        (errs().attribute("model_error_interval", whole(0)), &["model_error_interval", "at least 1", "found 0"]),
        (errs().attribute("model_error_interval", whole(10)), &["model_error_interval", "fits", "found 10"]),
        (errs().attribute("model_error_interval", real(1.5)), &["`model_error_interval`", "whole number", "1.5"]),
        (Draft::new().attribute("forcing_std", real(0.0)), &["parameter_std of forcing", "> 0", "found 0"]),
        (Draft::new().attribute("forcing_std", real(f64::NAN)), &["parameter_std of forcing", "NaN"]),
        (Draft::new().attribute("forcing_std", text("0.5")), &["`forcing_std`", "expected a number"]),
        (Draft::new().attribute("true_forcing", real(f64::NAN)), &["true parameters of forcing", "NaN"]),
    ];
    for (k, (draft, words)) in cases.into_iter().enumerate() {
        let result = draft.read();
        if let Err(error) = &result {
            assert!(matches!(error, Error::File { .. }), "case {k} does not name the file: {error}");
        }
        println!("case {k}: {:?}", result.as_ref().err().map(ToString::to_string));
        assert_refused(result, words);
    }
}

#[test]
fn too_few_sites_or_times_are_refused() {
    let mut few = Draft::new();
    few.dimensions = vec![("time", TIMES), ("site", 3)];
    for name in ["background", "background_std"] {
        few = few.edit(name, |v| v.truncate(3));
    }
    for name in ["observation", "observation_std"] {
        few = few.edit(name, |v| *v = vec![1.0; TIMES * 3]);
    }
    assert_refused(few.read(), &["sites", "at least 4", "found 3"]);

    let mut none = Draft::new().dimension("time", 0);
    none.unlimited = Some("time");
    for name in ["time", "observation", "observation_std"] {
        none = none.edit(name, Vec::clear);
    }
    assert_refused(none.read(), &["times", "at least one", "found 0"]);
}

#[test]
fn what_is_no_netcdf_file_is_refused() {
    let directory = temporary();
    let path = directory.path().join("p.nc");
    assert_refused(Problem::read(&path), &["p.nc", "cannot be read", "check the name"]);
    assert_refused(Problem::read(directory.path()), &["found something else"]);
    let contents: [(&[u8], &[&str]); 6] = [
        (b"", &["expected a NetCDF file", "0 bytes"]),
        (b"CD", &["expected a NetCDF file", "2 bytes"]),
        (b"time,site\n0,1\n", &["expected a NetCDF file"]),
        (b"\x89HDF\r\n\x1a\n0000", &["NetCDF-4", "NETCDF3_64BIT"]),
        (b"CDF\x05\0\0\0\0", &["CDF-5", "nccopy"]),
        (b"CDF\x01", &["truncated or damaged", "byte 4 of 4"]),
    ];
    for (bytes, words) in contents {
        fs::write(&path, bytes).unwrap();
        assert_refused(Problem::read(&path), words);
        assert_refused(read_members(&path, SITES), words);
        assert_refused(read_analysis(&path), words);
    }
}

// ---------------------------------------------------------------------------------------------- what is learned

#[test]
fn learned_errors_round_trip() {
    let directory = temporary();
    let path = directory.path().join("learned.nc");
    learned().write(&path, &stamps(), false).unwrap();
    assert_eq!(Vae::read(&path).unwrap(), learned());
}

// ------------------------------------------------------------------------------------------------ members, results

#[test]
fn members_round_trip_and_bad_members() {
    let directory = temporary();
    let path = directory.path().join("m.nc");
    let mut states = Array2::from_shape_fn((3, SITES), |(m, i)| wavy(m * 50 + i));
    // A transposed view: written in the order of its dimensions, not of memory.
    let transposed = states.t().as_standard_layout().into_owned();
    write_members(&path, transposed.t(), &stamps(), false).unwrap();
    assert_eq!(read_members(&path, SITES).unwrap(), states);
    assert_refused(read_members(&path, 40), &["m.nc", "`initial_state`", "expected 40 sites", "found 6"]);

    states[[1, 2]] = f64::NAN;
    write_members(&path, states.view(), &stamps(), true).unwrap();
    assert_refused(read_members(&path, SITES), &["`initial_state`", "finite", "NaN at index 8"]);

    assert_refused(write_members(&path, Array2::zeros((0, 4)).view(), &stamps(), true), &["member", "at least one"]);
    let mut empty =
        Draft::new().dimension("member", 0).variable("initial_state", &["member", "site"], DataVector::F64(vec![]));
    empty.unlimited = Some("member");
    empty.write(&path);
    assert_refused(read_members(&path, SITES), &["`initial_state`", "at least one member"]);
    Draft::new().write(&path);
    assert_refused(read_members(&path, SITES), &["expected a variable `initial_state`"]);
}

#[test]
fn evaluation_holds_what_was_found() {
    let directory = temporary();
    let (path, again) = (directory.path().join("e.nc"), directory.path().join("again.nc"));
    let members = 3;
    let gradients = Gradients {
        costs: Costs {
            background: arr1(&[1.0, 2.0, f64::INFINITY]),
            observation: arr1(&[10.0, 20.0, 30.0]),
            diverged: vec![false, false, true],
        },
        gradient: Array2::from_shape_fn((members, SITES), |(m, i)| wavy(m * 50 + i)),
    };
    let trajectory = Array3::from_shape_fn((members, TIMES, SITES), |(m, t, i)| wavy(m * 500 + t * SITES + i));
    let p = problem();
    for path in [&path, &again] {
        write_evaluation(path, &p, &gradients, Some(trajectory.view()), &stamps(), false).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());

    let mut file = FileReader::open(&path).unwrap();
    assert_eq!(file.read_var_f64("cost_background").unwrap(), [1.0, 2.0, f64::INFINITY]);
    assert_eq!(file.read_var_f64("cost_observation").unwrap(), [10.0, 20.0, 30.0]);
    assert_eq!(file.read_var_f64("cost").unwrap(), [11.0, 22.0, f64::INFINITY]);
    assert_eq!(file.read_var_i8("diverged").unwrap(), [0, 0, 1]);
    assert_eq!(file.read_var_f64("gradient").unwrap(), gradients.gradient.into_raw_vec_and_offset().0);
    assert_eq!(file.read_var_f64("trajectory").unwrap(), trajectory.into_raw_vec_and_offset().0);
    assert_eq!(file.read_var_f64("time").unwrap()[TIMES - 1], p.window.time(TIMES - 1));
    let dimensions = |name: &str| file.data_set().get_var(name).unwrap().dim_names();
    assert_eq!(dimensions("gradient"), ["member", "site"]);
    assert_eq!(dimensions("trajectory"), ["member", "time", "site"]);
    assert_eq!(file.data_set().get_global_attr_f64("forcing"), Some(&[8.25][..]));
}

#[test]
fn analysis_round_trip() {
    let directory = temporary();
    let (path, again) = (directory.path().join("a.nc"), directory.path().join("again.nc"));
    let (p, written) = (full_b(block_average(problem())), analysis());
    write_analysis(&path, &p, &written, &stamps(), false).unwrap();
    write_analysis(&again, &p, &Analysis { seconds: 99.0, ..written.clone() }, &stamps(), false).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());

    let vi4dvar::output::SavedAnalysis { problem, analysis: read, attributes } = read_analysis(&path).unwrap();
    assert_same_problem(&problem, &p);
    assert_same_problem(&Problem::read(&path).unwrap(), &p);
    assert_eq!((read.method.as_str(), &read.summary), ("VI-4DVAR", &written.summary));
    assert_eq!((&read.mean, &read.std, &read.samples), (&written.mean, &written.std, &written.samples));
    assert_eq!(read.records.len(), 3);
    for (read, written) in read.records.iter().zip(&written.records) {
        assert_eq!(
            (read.name.as_str(), read.long_name.as_str(), read.units.as_str()),
            (written.name.as_str(), written.long_name.as_str(), written.units.as_str())
        );
        assert_eq!(read.dimensions, written.dimensions);
        assert_eq!(read.values.shape(), written.values.shape());
        assert!(same(&read.values, &written.values));
    }
    assert_eq!(read.record("minimum_cost").unwrap().values[IxDyn(&[])], 12.5);
    assert_eq!(attributes.get("learning_rate"), Some(&AttributeValue::Number(0.05)));
    assert_eq!(attributes.get("batch"), Some(&AttributeValue::Integer(64)));
    assert_eq!(attributes.get("adapter"), Some(&AttributeValue::Text(String::new())));
}

#[test]
fn analysis_without_samples() {
    let directory = temporary();
    let path = directory.path().join("a.nc");
    let mut written = analysis();
    written.samples = Array3::zeros((0, TIMES, SITES));
    written.records[0].values = ArrayD::zeros(IxDyn(&[0]));
    write_analysis(&path, &problem(), &written, &stamps(), false).unwrap();
    let read = read_analysis(&path).unwrap().analysis;
    assert_eq!(read.samples.dim(), (0, TIMES, SITES));
    assert!(read.record("elbo").is_none());
}

#[test]
fn analysis_that_does_not_fit_is_refused() {
    let directory = temporary();
    let path = directory.path().join("a.nc");
    let attempt = |change: &dyn Fn(&mut Analysis)| {
        let mut a = analysis();
        change(&mut a);
        write_analysis(&path, &problem(), &a, &stamps(), false)
    };
    assert_refused(attempt(&|a| a.mean = Array2::zeros((TIMES, 4))), &["`mean`", "`site`", "6 elements", "found 4"]);
    assert_refused(attempt(&|a| a.records[0].name = "truth".into()), &["record `truth`", "name"]);
    assert_refused(attempt(&|a| a.records[0].name = "minimum_cost".into()), &["`minimum_cost`", "name"]);
    assert_refused(attempt(&|a| a.records[0].name = "a/b".into()), &["a.nc", "names"]);
    assert_refused(
        attempt(&|a| a.records[0].dimensions = vec!["start".into(), "site".into()]),
        &["`elbo`", "(start, site)", "[3]"],
    );
    assert!(names_in(directory.path()).is_empty());

    problem().write(&path, &stamps(), false).unwrap();
    assert_refused(read_analysis(&path), &["expected an analysis", "`method`"]);
}

// ---------------------------------------------------------------------------------------------------------- writing

#[test]
fn existing_file_is_kept_without_permission() {
    let directory = temporary();
    let path = directory.path().join("p.nc");
    fs::write(&path, "precious").unwrap();
    let words = ["p.nc", "exists already", "--force"];
    assert_refused(check_writable(&path, false), &words);
    assert_refused(problem().write(&path, &stamps(), false), &words);
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    check_writable(&path, true).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    problem().write(&path, &stamps(), true).unwrap();
    Problem::read(&path).unwrap();
    assert_eq!(names_in(directory.path()), ["p.nc"]);
}

#[test]
fn unwritable_place_is_refused_and_left_alone() {
    let directory = temporary();
    fs::write(directory.path().join("file"), "").unwrap();
    let cases: [(&str, &[&str]); 3] = [
        ("file/p.nc", &["file is not a directory"]),
        ("missing/p.nc", &["missing does not exist", "create the directory"]),
        (".", &["expected the name of a file"]),
    ];
    for (place, words) in cases {
        let path = directory.path().join(place);
        for overwrite in [false, true] {
            assert_refused(check_writable(&path, overwrite), words);
            assert_refused(problem().write(&path, &stamps(), overwrite), words);
        }
    }
    check_writable(directory.path().join("new.nc"), false).unwrap();
    assert_eq!(names_in(directory.path()), ["file"]);
}

#[cfg(unix)]
#[test]
fn written_file_has_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let directory = temporary();
    let (path, plain) = (directory.path().join("p.nc"), directory.path().join("plain"));
    problem().write(&path, &stamps(), false).unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |p| fs::metadata(p).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&plain));
}

#[test]
fn variable_over_4_gib_is_refused() {
    check_size("trajectory", &[536_870_911]).unwrap();
    assert_refused(check_size("trajectory", &[536_870_912]), &["`trajectory`", "4 GiB", "4294967296 bytes", "fewer"]);
    assert_refused(check_size("trajectory", &[usize::MAX, 2]), &["4 GiB"]);
}
