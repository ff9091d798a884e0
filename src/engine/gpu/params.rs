//! The numbers of one dispatch, as `shaders/member.wgsl` reads them.

use bytemuck::{Pod, Zeroable};

/// Declares a struct of u32 with a table of its fields, which a test compares with the shader's.
macro_rules! uniform {
    ($(#[$doc:meta])* $name:ident { $($field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name {
            $(pub $field: u32,)*
        }

        /// Name and offset of each field.
        #[cfg(test)]
        pub const FIELDS: &[(&str, usize)] = &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
    };
}

uniform! {
    /// One dispatch. `shaders/member.wgsl` says what each field means.
    Params {
        rows,
        capacity,
        first_row,
        per_problem,
        groups_x,
        first_step,
        steps,
        steps_per_time,
        flags,
        state,
        next_state,
        kept,
        lane_costs,
        cotangent,
        epsilon,
        background,
        at_times,
        parameters,
        parameters_stride,
        mean,
        mean_stride,
        inverse,
        inverse_stride,
        factor,
        factor_stride,
        observation,
        observation_stride,
        observation_precision,
        observation_precision_stride,
        deviation,
        deviation_stride,
        own_background,
        store_stride,
        rank,
        projections,
        pattern,
        blocks_per_run,
        call_block,
        call_run,
        control,
        prior_precision,
        prior_precision_stride,
        errors,
        error_cotangents,
        error_count,
        error_interval,
        error_root,
        error_root_stride,
        lane_parameters,
    }
}

/// The segment begins at the initial time.
pub const FIRST: u32 = 1;
/// It ends at the last time of the sweep.
pub const LAST: u32 = 2;
/// Compute J_o.
pub const OBSERVATION: u32 = 4;
/// Compute J_b.
pub const BACKGROUND: u32 = 8;
/// Store the state at the stored times.
pub const STORE: u32 = 16;
/// Keep the draws.
pub const EPSILON: u32 = 32;
/// Project gradients on W, not draws on Z.
pub const LEFT: u32 = 64;
/// Cotangents of errors by (Q^1/2)', not xi by Q^1/2.
pub const TRANSPOSED: u32 = 128;

/// Name and value of each flag.
#[cfg(test)]
pub const FLAGS: [(&str, u32); 8] = [
    ("FIRST", FIRST),
    ("LAST", LAST),
    ("OBSERVATION", OBSERVATION),
    ("BACKGROUND", BACKGROUND),
    ("STORE", STORE),
    ("EPSILON", EPSILON),
    ("LEFT", LEFT),
    ("TRANSPOSED", TRANSPOSED),
];
