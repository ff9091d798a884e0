//! The dynamics: tendencies with their tangent and adjoint, and the RK4 scheme, generic over the number type.

mod lorenz63;
mod lorenz96;
mod number;
mod parameters;
mod ring;
mod rk4;

pub use lorenz63::Lorenz63;
pub use lorenz96::Lorenz96;
pub use number::Number;
pub use parameters::ParameterValues;
pub use rk4::Rk4;

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// A dynamical system dx/dt = f(x; parameters), with its Jacobian applied forwards and backwards.
///
/// Every method hands its result out component by component, in increasing order of the site, so that the
/// caller can fuse it with whatever it does next.
pub trait Dynamics: Copy + Default + Send + Sync + 'static {
    /// The name used in files and on the command line, and that of the shader: `shaders/NAME.wgsl`.
    const NAME: &'static str;
    /// Names of the parameters, in the order in which arrays hold them.
    const PARAMETERS: &'static [&'static str];
    /// What they are where nothing else is said.
    const DEFAULTS: &'static [f64];
    /// The numbers of sites on which the model is defined.
    const SITES: RangeInclusive<usize>;
    /// An RK4 step that suits it, in model time units.
    const STEP: f64;
    /// On a ring of sites that are all alike, how many before and after its own a component of the tendency reads: at most
    /// two. None of a model whose sites differ.
    const REACH: Option<[usize; 2]>;
    /// Of the tendency and of its adjoint, per site: floating-point operations, instructions that multiply (fused
    /// multiply-adds are two operations), and other instructions.
    const OPERATIONS: [[f64; 3]; 2];

    /// `emit(i, f_i(x))` for each site i. `x: [sites]`, `parameters: [p]`.
    fn tendency<R: Number>(parameters: &[R], x: &[R], emit: impl FnMut(usize, R));
    /// `emit(i, (F dx)_i)` with F = df/dx at x. `x, dx: [sites]`.
    fn tangent<R: Number>(parameters: &[R], x: &[R], dx: &[R], emit: impl FnMut(usize, R));
    /// `emit(i, (F' w)_i)` with F = df/dx at x. `x, w: [sites]`.
    fn adjoint<R: Number>(parameters: &[R], x: &[R], w: &[R], emit: impl FnMut(usize, R));
    /// `emit(i, (G dp)_i)` with G = df/dparameters at x. `dp: [p]`.
    fn parameter_tangent<R: Number>(parameters: &[R], x: &[R], dp: &[R], emit: impl FnMut(usize, R));
    /// `emit(k, (G' w)_k)` with G = df/dparameters at x, for each parameter k. `x, w: [sites]`.
    fn parameter_adjoint<R: Number>(parameters: &[R], x: &[R], w: &[R], emit: impl FnMut(usize, R));

    /// [`Rk4::step`]. A model that can pass over its sites fewer times than once for each stage has its own.
    #[inline(always)]
    fn step<R: Number, const KEEP: bool>(
        rk4: &mut Rk4<R>,
        parameters: &[R],
        x: &[R],
        stages: &mut [R],
        next: &mut [R],
    ) {
        rk4.staged_step::<Self>(parameters, x, stages, next);
    }

    /// [`Rk4::adjoint`], likewise.
    #[inline(always)]
    fn adjoint_step<R: Number>(rk4: &mut Rk4<R>, parameters: &[R], x: &[R], stages: &[R], w: &mut [R]) {
        rk4.staged_adjoint::<Self>(parameters, x, stages, w);
    }
}

/// Declares the models: [`Model`], and `with_model!`, which names the type of one.
macro_rules! models {
    ($d:tt $($(#[$doc:meta])* $Name:ident,)*) => {
        /// The models that a problem can name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Model { $($(#[$doc])* $Name,)* }

        impl Model {
            /// All models, in the order in which messages list them.
            pub const ALL: &[Self] = &[$(Self::$Name,)*];
        }

        /// `with_model!(model, M => call)` is the call with M the type of the model.
        macro_rules! with_model {
            ($d model:expr, $d M:ident => $d call:expr) => {
                match $d model {
                    $($crate::model::Model::$Name => {
                        type $d M = $crate::model::$Name;
                        $d call
                    })*
                }
            };
        }
    };
}

models! {
    $
    /// Lorenz-96 (Lorenz 1996), one parameter: `forcing`.
    Lorenz96,
    /// Lorenz-63 (Lorenz 1963), three parameters: `sigma`, `rho` and `beta`.
    Lorenz63,
}
pub(crate) use with_model;

impl Model {
    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        with_model!(self, M => M::NAME)
    }

    /// The model of that name.
    ///
    /// # Errors
    /// An unknown name, with the list of known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|m| m.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|m| m.name()).collect();
            Error::invalid("model", format!("one of {}", known.join(", ")), format!("{name:?}"), "choose a known model")
        })
    }

    /// Whether its sites lie on a ring and are all alike: a state that is turned has the trajectory turned.
    pub fn is_ring(self) -> bool {
        self.reach().is_some()
    }

    /// Names of the parameters, in the order in which arrays hold them.
    pub fn parameter_names(self) -> &'static [&'static str] {
        with_model!(self, M => M::PARAMETERS)
    }

    /// What they are where nothing else is said.
    pub fn default_parameters(self) -> &'static [f64] {
        with_model!(self, M => M::DEFAULTS)
    }

    /// The numbers of sites on which the model is defined.
    pub fn sites(self) -> RangeInclusive<usize> {
        with_model!(self, M => M::SITES)
    }

    /// An RK4 step that suits it, in model time units.
    pub fn step(self) -> f64 {
        with_model!(self, M => M::STEP)
    }

    /// [`Dynamics::REACH`].
    pub fn reach(self) -> Option<[usize; 2]> {
        with_model!(self, M => M::REACH)
    }

    /// [`Dynamics::OPERATIONS`].
    pub fn operations(self) -> [[f64; 3]; 2] {
        with_model!(self, M => M::OPERATIONS)
    }

    /// Refuses a number of sites on which the model is not defined.
    ///
    /// # Errors
    /// Lorenz-96 with fewer than 4 sites, Lorenz-63 with others than 3.
    pub fn check_sites(self, sites: usize) -> Result<()> {
        let defined = self.sites();
        if defined.contains(&sites) {
            return Ok(());
        }
        let (least, most) = defined.into_inner();
        let expected = if least == most { format!("{least}") } else { format!("at least {least}") };
        let expected = format!("{expected} for {}", self.name());
        Err(Error::invalid("sites", expected, sites.to_string(), "change the size of the state"))
    }

    /// Integrates one state on the host in f64: `x: [sites]` becomes the state `steps` RK4 steps of `dt` later.
    pub fn integrate(self, parameters: &[f64], x: &mut [f64], dt: f64, steps: usize) {
        with_model!(self, M => integrate::<M>(parameters, x, dt, steps));
    }
}

fn integrate<M: Dynamics>(parameters: &[f64], x: &mut [f64], dt: f64, steps: usize) {
    let mut rk4 = Rk4::<f64>::new((), x.len(), dt);
    let (mut stages, mut next) = (vec![0.0; 3 * x.len()], x.to_vec());
    for _ in 0..steps {
        rk4.step::<M, false>(parameters, x, &mut stages, &mut next);
        x.copy_from_slice(&next);
    }
}
