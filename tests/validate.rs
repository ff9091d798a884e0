//! `vi4dvar validate` from outside: sound engines pass every row, and a wrong shader fails at the row that sees it.

use assert_cmd::Command;
use serde_json::Value;
use std::fs;
use std::path::Path;
use vi4dvar::engine::adapters;
use vi4dvar::validation::check_names;

fn validate(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vi4dvar").unwrap();
    command.arg("validate").args(arguments);
    command
}

/// The one JSON object that a validation prints.
fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Whether there is an adapter to test; a machine that must have one fails without.
fn adapter(test: &str) -> bool {
    let found = !adapters().is_empty();
    if !found {
        let demanded = std::env::var("VI4DVAR_REQUIRE_GPU").is_ok_and(|v| v == "1");
        assert!(!demanded, "{test}: VI4DVAR_REQUIRE_GPU=1, and no adapter was found");
        eprintln!("==== SKIPPED {test}: no adapter. Nothing on the GPU was tested. ====");
    }
    found
}

/// Every row, in f32 and in f64 where there is one; figures are numbers and below their thresholds.
fn passes_everywhere(backend: &str) {
    let out = tempfile::TempDir::new().unwrap();
    let folder = out.path().join("validation");
    let arguments = ["--backend", backend, "--json", "--out", folder.to_str().unwrap()];
    let result = json(validate(&arguments).assert().success().get_output());
    assert_eq!(result["passed"], true);
    let rows = result["checks"].as_array().unwrap();
    let missing = result["missing"].as_array().unwrap().len();
    let expected = check_names().len() * (2 - missing) - (1 - missing);
    assert_eq!(rows.len(), expected, "every row for each number type, error growth for f32 alone");
    for row in rows {
        assert_eq!(row["passed"], true, "{row}");
        assert!(row["figure"].as_f64().unwrap() <= row["threshold"].as_f64().unwrap(), "{row}");
    }
    assert!(result["growth"].as_array().unwrap().len() > 5);
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(folder.join("validation.json")).unwrap()).unwrap(), result);
    for name in ["error-growth.svg", "error-growth.png"] {
        assert!(fs::metadata(folder.join(name)).unwrap().len() > 1000, "{name}");
    }
}

#[test]
fn cpu_engine_passes_every_row() {
    passes_everywhere("cpu");
}

#[test]
fn gpu_engine_passes_every_row() {
    if adapter("gpu_engine_passes_every_row") {
        passes_everywhere("gpu");
    }
}

/// A copy of the shaders with one text replaced.
fn broken_shaders(to: &Path, file: &str, from: &str, by: &str) {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let text = fs::read_to_string(to.join(file)).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{file} has changed: find the place anew");
    fs::write(to.join(file), text.replace(from, by)).unwrap();
}

/// The names of the rows that fail with these shaders, of a few that tell defects apart.
fn failing(shaders: &Path) -> Vec<String> {
    let checks = "one step,cost,gradient,dot product,random stream";
    let arguments = ["--precision", "f32", "--json", "--checks", checks, "--shaders", shaders.to_str().unwrap()];
    let result = json(validate(&arguments).assert().code(1).get_output());
    assert_eq!(result["passed"], false);
    let rows = result["checks"].as_array().unwrap().iter().filter(|row| row["passed"] == false);
    rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_flipped_sign_in_the_adjoint_fails_the_gradient_and_the_dot_product() {
    if !adapter("a_flipped_sign_in_the_adjoint_fails_the_gradient_and_the_dot_product") {
        return;
    }
    let d = tempfile::TempDir::new().unwrap();
    broken_shaders(d.path(), "lorenz96.wgsl", "fma(-w[${i + 4}]", "fma(w[${i + 4}]");
    assert_eq!(failing(d.path()), ["gradient", "dot product"]);
}

#[test]
fn a_wrong_constant_of_the_generator_fails_the_random_stream_alone() {
    if !adapter("a_wrong_constant_of_the_generator_fails_the_random_stream_alone") {
        return;
    }
    let d = tempfile::TempDir::new().unwrap();
    broken_shaders(d.path(), "random.wgsl", "0xD2511F53u", "0xD2511F55u");
    assert_eq!(failing(d.path()), ["random stream"]);
}

/// A kernel asked for by name takes some sizes only: the rows of the others say nothing about the adapter.
#[test]
fn rows_that_a_kernel_does_not_take_are_left_out_and_named() {
    if !adapter("rows_that_a_kernel_does_not_take_are_left_out_and_named") {
        return;
    }
    let arguments = ["--kernel", "lanes=4", "--precision", "f32", "--json", "--checks", "One step, reductions"];
    let result = json(validate(&arguments).assert().success().get_output());
    assert_eq!(result["checks"].as_array().unwrap().len(), 1, "{result}");
    assert!(result["missing"][0][1].as_str().unwrap().contains("reductions"), "{result}");
}

#[test]
fn wrong_use_is_refused() {
    for (arguments, expected) in [
        (&["--checks", "gradients", "--backend", "cpu"][..], "\"gradients\""),
        (&["--checks", "growth of the error", "--precision", "f64", "--backend", "cpu"], "f32"),
        (&["--shaders", "no/such/folder"], "no/such/folder"),
        (&["--shaders", ".", "--backend", "cpu"], "--backend gpu"),
        (&["--adapter", "no such adapter"], "adapter"),
    ] {
        let output = validate(arguments).assert().code(2).get_output().clone();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected) && !message.contains("panicked"), "{arguments:?}: {message}");
    }
}
