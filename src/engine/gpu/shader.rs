//! From the templates in `shaders/` to WGSL specialised for one problem shape.

use super::layout::{MemberLayout, Stages, TILE, Trajectory};
use super::plan::{SUM_COLUMNS, quantities};
use super::templates::Templates;
use crate::engine::{BLOCK, CostHistogram, Precision};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::problem::{ObservationOperator, PointFunction};
use crate::random::Stream;
use minijinja::{Environment, Value, context, syntax::SyntaxConfig};

/// The kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    Draw,
    Lower,
    /// Draws or gradients on the factors of a low rank.
    Project,
    LowRank,
    Background,
    /// From what the control holds to the model's errors, and from their cotangents back.
    Errors,
    Forward,
    Reverse,
    /// The reverse sweep of a given forcing.
    Adjoint,
    Tangent,
    Sums,
    Totals,
    /// Sums on the pattern of a lower triangular scale.
    LowerPattern,
    /// Sums on the pattern of a diagonal and a low rank.
    LowRankPattern,
    PatternTotals,
    /// Brings resident members.
    Fetch,
    /// Moves them.
    Adam,
    Select,
    Gather,
}

/// What a binding of a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    Uniform,
    Read,
    ReadWrite,
}

impl Kernel {
    #[cfg(test)]
    pub const ALL: [Self; 19] = [
        Self::Draw,
        Self::Lower,
        Self::Project,
        Self::LowRank,
        Self::Background,
        Self::Errors,
        Self::Forward,
        Self::Reverse,
        Self::Adjoint,
        Self::Tangent,
        Self::Sums,
        Self::Totals,
        Self::LowerPattern,
        Self::LowRankPattern,
        Self::PatternTotals,
        Self::Fetch,
        Self::Adam,
        Self::Select,
        Self::Gather,
    ];

    fn template(self) -> &'static str {
        match self {
            Self::Draw => "draw.wgsl",
            Self::Lower => "lower.wgsl",
            Self::Project => "project.wgsl",
            Self::LowRank => "low_rank.wgsl",
            Self::Background => "background.wgsl",
            Self::Errors => "errors.wgsl",
            Self::Forward => "forward.wgsl",
            Self::Reverse | Self::Adjoint => "reverse.wgsl",
            Self::Tangent => "tangent.wgsl",
            Self::Sums => "sums.wgsl",
            Self::Totals => "totals.wgsl",
            Self::LowerPattern | Self::LowRankPattern => "pattern.wgsl",
            Self::PatternTotals => "pattern_totals.wgsl",
            Self::Fetch => "fetch.wgsl",
            Self::Adam => "adam.wgsl",
            Self::Select => "select.wgsl",
            Self::Gather => "gather.wgsl",
        }
    }

    pub fn entry_point(self) -> &'static str {
        match self {
            Self::Draw => "draw",
            Self::Lower => "multiply_lower",
            Self::Project => "project",
            Self::LowRank => "add_low_rank",
            Self::Background => "background",
            Self::Errors => "colour",
            Self::Forward => "forward",
            Self::Reverse | Self::Adjoint => "reverse",
            Self::Tangent => "tangent",
            Self::Sums => "sums",
            Self::Totals => "add_totals",
            Self::LowerPattern | Self::LowRankPattern => "sum_pattern",
            Self::PatternTotals => "add_pattern",
            Self::Fetch => "fetch",
            Self::Adam => "adam",
            Self::Select => "select_block",
            Self::Gather => "gather",
        }
    }

    /// The part of an ownership that makes a difference to the kernel.
    pub fn specialise(self, ownership: Ownership) -> Ownership {
        let Ownership { listed, own_background, .. } = ownership;
        match self {
            Self::Forward | Self::Reverse => ownership,
            Self::Background | Self::Errors => Ownership { listed, own_background, perturbed: false },
            Self::Adjoint | Self::Tangent | Self::Fetch | Self::Adam => Ownership { listed, ..Ownership::default() },
            _ => Ownership::default(),
        }
    }

    /// The bindings of group 0, from 0 on. The first four are those of `member.wgsl`, and so is the list of members.
    pub fn bindings(self, ownership: Ownership) -> &'static [Binding] {
        use Binding::{Read, ReadWrite, Uniform};
        match self {
            Self::Adam => &[Uniform, Read, ReadWrite, ReadWrite, Read, ReadWrite, Read, Read],
            Self::Draw | Self::Fetch => &[Uniform, Read, ReadWrite, ReadWrite, Read, Read],
            Self::Lower | Self::Project | Self::LowRank => &[Uniform, Read, ReadWrite, ReadWrite, Read],
            Self::Sums | Self::LowerPattern | Self::LowRankPattern => {
                &[Uniform, Read, ReadWrite, ReadWrite, ReadWrite, Uniform]
            }
            Self::Totals | Self::PatternTotals => &[Uniform, Read, ReadWrite, ReadWrite, ReadWrite, ReadWrite, Uniform],
            Self::Select => &[Uniform, Read, ReadWrite, ReadWrite, Uniform, ReadWrite, ReadWrite],
            Self::Gather => &[Uniform, Read, ReadWrite, ReadWrite, Uniform, ReadWrite, Read, ReadWrite, ReadWrite],
            _ if ownership.listed => &[Uniform, Read, ReadWrite, ReadWrite, Read],
            _ => &[Uniform, Read, ReadWrite, ReadWrite],
        }
    }
}

/// What the kernels of a problem set are specialised for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub model: Model,
    pub sites: usize,
    pub operator: ObservationOperator,
    pub full_background: bool,
    pub control: Beside,
    pub precision: Precision,
    pub ownership: Ownership,
    /// A set of one problem: everything about it is the same for all members.
    pub one_problem: bool,
    /// The device multiplies 64-bit integers.
    pub wide_integers: bool,
    pub layout: MemberLayout,
    /// Steps that a workgroup keeps of a trajectory in its memory.
    pub steps_in_group: usize,
}

impl Shape {
    /// The part of a shape that makes a difference to a kernel.
    pub fn specialise(self, kernel: Kernel, ownership: Ownership) -> Self {
        let plain = MemberLayout::of_lanes(1);
        let (layout, steps_in_group) = match kernel {
            Kernel::Reverse | Kernel::Adjoint => (self.layout, self.steps_in_group),
            Kernel::Forward | Kernel::Tangent => {
                (MemberLayout { trajectory: Trajectory::Global, stages: Stages::Recomputed, ..self.layout }, 0)
            }
            _ => (plain, 0),
        };
        let control = match kernel {
            Kernel::Forward | Kernel::Reverse | Kernel::Adjoint | Kernel::Tangent => {
                Beside { full_errors: false, ..self.control }
            }
            Kernel::Errors => Beside { parameters: false, ..self.control },
            Kernel::Background | Kernel::Select | Kernel::Gather => Beside::default(),
            // They mind that there is more than x0.
            _ => Beside { errors: !self.control.is_empty(), ..Beside::default() },
        };
        Self { ownership: kernel.specialise(ownership), control, layout, steps_in_group, ..self }
    }
}

/// What a control holds beside x0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Beside {
    /// The model's errors.
    pub errors: bool,
    /// Their Q is no diagonal.
    pub full_errors: bool,
    /// The model's parameters.
    pub parameters: bool,
}

impl Beside {
    pub fn is_empty(self) -> bool {
        !(self.errors || self.parameters)
    }
}

/// How kernels know whose a member is, and what it has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ownership {
    /// A list says whose each member is. Else each problem has as many.
    pub listed: bool,
    /// Observations of its own; needs the list.
    pub perturbed: bool,
    /// A background of its own.
    pub own_background: bool,
}

/// How invocations lie over a tile of the sums on a scale's pattern: how many across, of 64, and how many rows and columns
/// each has of it.
fn pattern_grid(kernel: Kernel, shape: &Shape) -> (usize, usize) {
    match kernel {
        // Larger tiles read less, and leave more of a small matrix's idle.
        Kernel::LowerPattern => (8, if shape.sites > 64 || !shape.control.is_empty() { 4 } else { 2 }),
        _ => (4, 2),
    }
}

/// Rows and columns of such a tile.
pub fn pattern_tile(kernel: Kernel, shape: &Shape) -> (usize, usize) {
    let (across, each) = pattern_grid(kernel, shape);
    (64 / across * each, across * each)
}

/// The WGSL of a kernel.
///
/// # Errors
/// A template that does not render.
pub fn source(kernel: Kernel, shape: &Shape, templates: &Templates) -> Result<String> {
    let syntax = SyntaxConfig::builder()
        .variable_delimiters("${", "}")
        .line_statement_prefix("//%")
        .build()
        .map_err(|e| broken(kernel, &e.to_string()))?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    for (name, text) in templates.iter() {
        environment.add_template(name, text).map_err(|e| broken(kernel, &e.to_string()))?;
    }
    let layout = shape.layout;
    let sites_per_lane = layout.sites_per_lane(shape.sites, shape.operator.block_size);
    let [before, after] = shape.model.reach().unwrap_or_default();
    // Strides of a sum by halves.
    let strides = |count: usize| -> Vec<usize> {
        std::iter::successors(Some(count.next_power_of_two() / 2), |s| Some(s / 2)).take_while(|s| *s > 0).collect()
    };
    let (pattern_across, pattern_each) = pattern_grid(kernel, shape);
    let numbers = context! {
        REAL => shape.precision.name(),
        N => shape.sites,
        S => sites_per_lane,
        LANES => layout.lanes,
        LANE_STRIDES => strides(layout.lanes),
        // Of the sites that the last lane holds.
        OWNED => shape.sites - (layout.lanes - 1) * sites_per_lane,
        MEMBERS_PER_GROUP => layout.members_per_group(),
        GROUP => layout.group,
        HALO => layout.halo.name(),
        // Sites have neighbours.
        RING => shape.model.reach().is_some(),
        BEFORE => before,
        AFTER => after,
        TRAJECTORY => layout.trajectory.name(),
        STEPS_IN_GROUP => shape.steps_in_group.max(1),
        STATES_PER_STEP => layout.states_per_step(),
        TILE => TILE,
        ONE_PROBLEM => shape.one_problem,
        WIDE_INTEGERS => shape.wide_integers,
        PARAMETERS => shape.model.parameter_names().len(),
        MODEL => shape.model.name(),
        FUNCTION => shape.operator.function.name(),
        BLOCK_SIZE => shape.operator.block_size,
        BLOCK_MEMBERS => BLOCK,
        BLOCK_STRIDES => strides(BLOCK),
        BINS => CostHistogram::BINS,
        FIRST_BIN => CostHistogram::FIRST,
        QUANTITIES => quantities(shape.sites),
        // Known here where it is x0 alone, so that loops over it are as they would be without anything else.
        CONTROL => if shape.control.is_empty() { "N" } else { "params.control" },
        EXTENDED => !shape.control.is_empty(),
        ERRORS => shape.control.errors,
        FULL_ERRORS => shape.control.full_errors,
        ESTIMATED => shape.control.parameters,
        SUM_COLUMNS => SUM_COLUMNS,
        LOWER_PATTERN => kernel == Kernel::LowerPattern,
        PATTERN_ACROSS => pattern_across,
        PATTERN_DOWN => 64 / pattern_across,
        PATTERN_EACH => pattern_each,
        FULL_BACKGROUND => shape.full_background,
        LISTED => shape.ownership.listed,
        PERTURBED => shape.ownership.perturbed,
        OWN_BACKGROUND => shape.ownership.own_background,
        PERTURBATION_STREAM => Stream::ObservationPerturbation as u32,
        FORCING => kernel == Kernel::Adjoint,
        SWEEP => match kernel {
            Kernel::Reverse | Kernel::Adjoint => "reverse",
            Kernel::Tangent => "tangent",
            _ => "forward",
        },
    };
    let series = if kernel == Kernel::Select || shape.operator.function == PointFunction::Softplus {
        series(shape.precision)
    } else {
        context! {}
    };
    environment
        .get_template(kernel.template())
        .and_then(|t| t.render(context! { ..numbers, ..series }))
        .map_err(|e| broken(kernel, &format!("{e:#}")))
}

/// The coefficients of our own exponential and logarithm, highest power first, to the precision's last bit.
fn series(precision: Precision) -> Value {
    let (exp_terms, log_terms, bits) = match precision {
        Precision::F32 => (8, 9, 7),
        Precision::F64 => (15, 19, 10),
    };
    let mut factorials = vec![1.0f64];
    for k in 1..exp_terms {
        factorials.push(factorials[k - 1] * k as f64);
    }
    let text = |v: f64| format!("{v:?}");
    let exponent_bits: Vec<Value> =
        (0..bits).map(|b| context! { bit => 1u32 << b, power => text((-f64::from(1u32 << b)).exp2()) }).collect();
    context! {
        EXP_COEFFICIENTS => factorials.iter().rev().map(|f| text(1.0 / f)).collect::<Vec<_>>(),
        LOG_COEFFICIENTS => (0..log_terms).rev().map(|m| text(1.0 / f64::from(2 * m + 1))).collect::<Vec<_>>(),
        EXPONENT_BITS => exponent_bits,
        SMALLEST_EXPONENT => if precision == Precision::F32 { 126 } else { 1022 },
        DEEPEST_EXPONENT => if precision == Precision::F32 { 80 } else { 700 },
    }
}

fn broken(kernel: Kernel, message: &str) -> Error {
    Error::Device {
        message: format!("the {kernel:?} kernel does not build: {message}"),
        help: "report this as a bug".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn shapes() -> Vec<Shape> {
        let mut shapes = Vec::new();
        for precision in [Precision::F32, Precision::F64] {
            for function in PointFunction::ALL {
                for (model, (sites, block_size, full_background)) in Model::ALL.iter().flat_map(|model| {
                    let sizes = [
                        (3, 1, false),
                        (3, 3, true),
                        (4, 1, false),
                        (13, 1, true),
                        (40, 4, false),
                        (64, 1, true),
                        (120, 3, false),
                        (128, 8, false),
                    ];
                    sizes.map(|size| (*model, size)).into_iter().filter(|(m, size)| m.check_sites(size.0).is_ok())
                }) {
                    // Every layout once, but not with every operator.
                    let layouts = if function == PointFunction::Square {
                        crate::engine::gpu::layout::tests::layouts(model, sites, block_size, precision)
                    } else {
                        vec!["lanes=1".parse().unwrap()]
                    };
                    shapes.extend(layouts.into_iter().zip([true, false].into_iter().cycle()).map(
                        |(layout, one_problem)| Shape {
                            model,
                            sites,
                            operator: ObservationOperator { function, block_size },
                            ownership: Ownership::default(),
                            full_background,
                            control: Beside::default(),
                            precision,
                            one_problem,
                            wide_integers: one_problem,
                            layout,
                            steps_in_group: 2,
                        },
                    ));
                }
            }
        }
        // What a control may hold beside x0, not with every operator.
        let squares = |s: &&Shape| s.operator.function == PointFunction::Square && s.sites <= 40;
        let squares: Vec<_> = shapes.iter().filter(squares).copied().step_by(7).collect();
        for control in [(true, false, false), (true, true, true), (false, false, true)] {
            let (errors, full_errors, parameters) = control;
            shapes.extend(squares.iter().map(|s| Shape { control: Beside { errors, full_errors, parameters }, ..*s }));
        }
        shapes
    }

    /// Every kernel with every variant of every shape, once.
    fn variants() -> Vec<(Kernel, Shape)> {
        let mut all = std::collections::HashSet::new();
        for (shape, kernel) in shapes().into_iter().flat_map(|shape| Kernel::ALL.map(|kernel| (shape, kernel))) {
            if kernel == Kernel::Errors && !shape.control.errors {
                continue;
            }
            let only_listed = matches!(kernel, Kernel::Fetch | Kernel::Adam);
            for (listed, perturbed, own_background) in [
                (false, false, false),
                (true, false, false),
                (true, true, false),
                (true, false, true),
                (true, true, true),
            ] {
                let ownership = Ownership { listed, perturbed, own_background };
                if listed || !only_listed {
                    all.insert((kernel, shape.specialise(kernel, ownership)));
                }
            }
        }
        all.into_iter().collect()
    }

    #[test]
    fn every_kernel_variant_is_valid_wgsl() {
        let failure = |(kernel, shape): (Kernel, Shape)| {
            let text = source(kernel, &shape, &Templates::default()).unwrap();
            let checked = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text)).and_then(|m| {
                naga::valid::Validator::new(
                    naga::valid::ValidationFlags::all(),
                    naga::valid::Capabilities::FLOAT64
                        | naga::valid::Capabilities::SUBGROUP
                        | naga::valid::Capabilities::SHADER_INT64,
                )
                .validate(&m)
                .map_err(|e| e.emit_to_string(&text))
            });
            checked.err().map(|message| format!("{kernel:?} of {shape:?}:\n{message}"))
        };
        let failures: Vec<_> = variants().into_par_iter().filter_map(failure).collect();
        assert!(failures.is_empty(), "{} failures, the first: {}", failures.len(), failures[0]);
    }

    #[test]
    fn f64_kernels_use_no_built_in_transcendental() {
        let f64: Vec<_> = variants().into_iter().filter(|(_, s)| s.precision == Precision::F64).collect();
        f64.into_par_iter().for_each(|(kernel, shape)| {
            let text = source(kernel, &shape, &Templates::default()).unwrap();
            for line in text.lines().map(|l| l.split("//").next().unwrap_or_default()) {
                for name in ["exp(", "exp2(", "log(", "log2(", "pow(", "sin(", "cos(", "tanh("] {
                    let at =
                        line.find(name).filter(|at| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                    assert!(at.is_none(), "{kernel:?}: {line}");
                }
            }
        });
    }

    #[test]
    fn params_lie_on_the_device_as_on_the_host() {
        let text = source(Kernel::Forward, &shapes()[0], &Templates::default()).unwrap();
        let module = naga::front::wgsl::parse_str(&text).unwrap();
        let (_, params) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params")).unwrap();
        let naga::TypeInner::Struct { members, .. } = &params.inner else { panic!("Params is a struct") };
        let device: Vec<_> = members.iter().map(|m| (m.name.clone().unwrap(), m.offset as usize)).collect();
        let host: Vec<_> = super::super::params::FIELDS.iter().map(|(n, o)| ((*n).to_owned(), *o)).collect();
        assert_eq!(device, host);
        for (name, flag) in super::super::params::FLAGS {
            assert!(text.contains(&format!("const {name}: u32 = {flag}u;")), "{name} is not {flag} on the device");
        }
    }
}
