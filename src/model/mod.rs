//! The dynamics: tendencies with their tangent and adjoint, and the RK4 scheme, generic over the number type.

mod lorenz96;
mod number;
mod ring;
mod rk4;

pub use lorenz96::Lorenz96;
pub use number::Number;
pub use rk4::Rk4;

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// A dynamical system dx/dt = f(x; parameters), with its Jacobian applied forwards and backwards.
///
/// Every method hands its result out component by component, in increasing order of the site, so that the
/// caller can fuse it with whatever it does next.
pub trait Dynamics: Copy + Default + Send + Sync + 'static {
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

/// The models that a problem can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// Lorenz-96 (Lorenz 1996), one parameter: `forcing`.
    Lorenz96,
}

impl Model {
    /// All models, in the order in which messages list them.
    pub const ALL: [Self; 1] = [Self::Lorenz96];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lorenz96 => "lorenz96",
        }
    }

    /// The model of that name.
    ///
    /// # Errors
    /// An unknown name, with the list of known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|m| m.name()).collect();
            Error::invalid("model", format!("one of {}", known.join(", ")), format!("{name:?}"), "choose a known model")
        })
    }

    /// Whether its sites lie on a ring and are all alike: a state that is turned has the trajectory turned.
    pub fn is_ring(self) -> bool {
        match self {
            Self::Lorenz96 => true,
        }
    }

    /// Names of the parameters, in the order in which arrays hold them.
    pub fn parameter_names(self) -> &'static [&'static str] {
        match self {
            Self::Lorenz96 => &["forcing"],
        }
    }

    /// Refuses a number of sites on which the model is not defined.
    ///
    /// # Errors
    /// Lorenz-96 with fewer than 4 sites.
    pub fn check_sites(self, sites: usize) -> Result<()> {
        let (defined, expected) = match self {
            Self::Lorenz96 => (sites >= 4, "at least 4"),
        };
        if defined {
            return Ok(());
        }
        let expected = format!("{expected} for {}", self.name());
        Err(Error::invalid("sites", expected, sites.to_string(), "change the size of the state"))
    }

    /// Integrates one state on the host in f64: `x: [sites]` becomes the state `steps` RK4 steps of `dt` later.
    pub fn integrate(self, parameters: &[f64], x: &mut [f64], dt: f64, steps: usize) {
        match self {
            Self::Lorenz96 => integrate::<Lorenz96>(parameters, x, dt, steps),
        }
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
