// What every kernel knows: the dispatch, the problem set, and where states and costs lie.

alias real = ${REAL};

const N: u32 = ${N}u;                    // sites

const HALF: real = 0.5;
const ZERO: real = 0.0;

// One dispatch. The host's `Params` has the same fields; a test holds the two together.
struct Params {
    rows: u32,             // members in this chunk
    capacity: u32,         // members between two consecutive sites in memory
    first_row: u32,        // the chunk's first member among all members of the batch
    per_problem: u32,      // members of one problem
    groups_x: u32,         // workgroups in the dispatch's first dimension
    first_step: u32,       // the segment's RK4 steps: first_step .. first_step + steps
    steps: u32,
    steps_per_time: u32,
    flags: u32,
    state: u32,            // slot of the segment's first state
    next_state: u32,       // slot of the state after it
    kept: u32,             // first number of what is kept along the segment: see trajectory.wgsl
    lane_costs: u32,       // first number of the lanes' costs, carried from segment to segment: [invocations]
    cotangent: u32,        // slot of the cotangent, in the end the gradient; of the perturbation in a tangent sweep
    epsilon: u32,          // slot of the draws; perturbations of observations have two, for lanes that hold too much
    background: u32,       // slot of B^-1 (x0 - xb), where B is full
    at_times: u32,         // first slot of what is stored (trajectory) or read (forcing) at the stored times
    parameters: u32,       // places in `problem`, and how far apart two problems lie there (0: shared)
    parameters_stride: u32,
    mean: u32,
    mean_stride: u32,
    inverse: u32,          // of B: its diagonal, or the matrix
    inverse_stride: u32,
    factor: u32,           // on the matrix
    factor_stride: u32,
    observation: u32,
    observation_stride: u32,
    observation_precision: u32,  // w_t / sigma^2
    observation_precision_stride: u32,
    deviation: u32,              // sigma
    deviation_stride: u32,
    own_background: u32,   // slot of the members' own backgrounds
    store_stride: u32,     // members between two consecutive numbers in the store of resident members
    rank: u32,             // of the scale of drawn members
    projections: u32,      // slots of Z' eps and then W' g: [2 rank, capacity]
    pattern: u32,          // sums on the pattern of the scale
    blocks_per_run: u32,   // blocks whose sums are added on the device
    call_block: u32,       // the first block of the call, and its run, among those of the batch
    call_run: u32,
    control: u32,          // length of the control: x0, the errors' xi, the parameters
    prior_precision: u32,  // the diagonal of the prior's inverse covariance, of the whole control
    prior_precision_stride: u32,
    errors: u32,           // first slot of the model's errors eta
    error_cotangents: u32, // first slot of their cotangents; of their perturbations in a tangent sweep
    error_count: u32,      // errors within the sweep
    error_interval: u32,   // RK4 steps between two
    error_root: u32,       // Q^1/2: its diagonal, or lower triangular
    error_root_stride: u32,
    lane_parameters: u32,  // first number of the lanes' parameter cotangents, carried likewise: [invocations, parameters]
}

const FIRST: u32 = 1u;         // the segment begins at the initial time
const LAST: u32 = 2u;          // it ends at the last time of the sweep
const OBSERVATION: u32 = 4u;   // compute J_o
const BACKGROUND: u32 = 8u;    // compute J_b
const STORE: u32 = 16u;        // store the state at the stored times
const EPSILON: u32 = 32u;      // keep the draws
const LEFT: u32 = 64u;         // project gradients on W, not draws on Z
const TRANSPOSED: u32 = 128u;  // cotangents by (Q^1/2)', not xi by Q^1/2

@group(0) @binding(0) var<uniform> params: Params;
// The problem set: dt/2, dt, dt/6, the amplitude of this call's perturbations, then the fields that `params` places.
@group(0) @binding(1) var<storage, read> problem: array<real>;
// States: [slot, site, capacity], members next to each other. A control lies in consecutive slots: number i in row i from
// the first on, so that x0 is in its first slot and xi_k in the k-th after it.
@group(0) @binding(2) var<storage, read_write> states: array<real>;
// J_b, J_o, and 1 for a member that diverged: [3, capacity].
@group(0) @binding(3) var<storage, read_write> costs: array<real>;

//% if LISTED
// Whose a member is, the key of its draws, and where it is kept if it is resident.
struct Row {
    problem: u32,
    member: u32,
    key_low: u32,
    key_high: u32,
    store: u32,
}
@group(0) @binding(4) var<storage, read> list: array<Row>;
//% endif

// The problem of the chunk's member k.
fn problem_of(k: u32) -> u32 {
    //% if ONE_PROBLEM
    // A constant: all invocations read the same numbers, which many GPUs load once for all.
    return 0u;
    //% elif LISTED
    return list[params.first_row + k].problem;
    //% else
    return (params.first_row + k) / params.per_problem;
    //% endif
}

// Whether a number is below 2^55 in magnitude: the definition of a member that has not diverged. By exponent bits,
// since a compiler may assume that there is no NaN.
fn in_range(x: real) -> bool {
    return (bitcast<u32>(f32(x)) & 0x7f800000u) < 0x5b000000u;
}
