// How a member lies over invocations: ${LANES} lane(s) of ${S} consecutive sites each, its ${N} sites on a ring.
// With several lanes the last may own fewer sites than it holds; what it holds beyond the ring repeats the ring's
// beginning, and computes the same numbers.

alias real = ${REAL};

const N: u32 = ${N}u;                    // sites
const SITES_PER_LANE: u32 = ${S}u;
const LANES: u32 = ${LANES}u;
const MEMBERS_PER_GROUP: u32 = ${MEMBERS_PER_GROUP}u;
const GROUP: u32 = ${GROUP}u;            // invocations per workgroup

alias State = array<real, ${S}>;         // the sites of one lane
alias Ring = array<real, ${S + 4}>;      // the same with two neighbours on either side: site i is at i + 2

const HALF: real = 0.5;
const ZERO: real = 0.0;

// One dispatch. The host's `Params` has the same fields; a test holds the two together.
struct Params {
    rows: u32,             // members in this chunk
    capacity: u32,         // members between two consecutive sites in memory
    first_row: u32,        // the chunk's first member among all members of the call
    per_problem: u32,      // members of one problem
    groups_x: u32,         // workgroups in the dispatch's first dimension
    first_step: u32,       // the segment's RK4 steps: first_step .. first_step + steps
    steps: u32,
    steps_per_time: u32,
    flags: u32,
    state: u32,            // slot of the segment's first state
    next_state: u32,       // slot of the state after it
    kept: u32,             // first slot of the states kept along the segment
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
}

const FIRST: u32 = 1u;         // the segment begins at the initial time
const LAST: u32 = 2u;          // it ends at the last time of the sweep
const OBSERVATION: u32 = 4u;   // compute J_o
const BACKGROUND: u32 = 8u;    // compute J_b
const STORE: u32 = 16u;        // store the state at the stored times

@group(0) @binding(0) var<uniform> params: Params;
// The problem set: dt/2, dt, dt/6, the amplitude of this call's perturbations, then the fields that `params` places.
@group(0) @binding(1) var<storage, read> problem: array<real>;
// States: [slot, site, capacity], members next to each other.
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
    //% if LISTED
    return list[params.first_row + k].problem;
    //% else
    return (params.first_row + k) / params.per_problem;
    //% endif
}

var<private> member: u32;      // within the chunk
var<private> live: bool;       // false for the spare invocations of the last workgroup, which repeat the last member
var<private> problem_index: u32;
var<private> lane: u32;
var<private> slot: u32;        // the member's place in its workgroup
var<private> model_parameters: array<real, ${PARAMETERS}>;

//% if LANES > 1
var<workgroup> shared_sites: array<real, ${N * MEMBERS_PER_GROUP}>;
//% endif

fn place(local: u32, group: vec3<u32>) {
    slot = local % MEMBERS_PER_GROUP;
    lane = local / MEMBERS_PER_GROUP;
    let wanted = (group.y * params.groups_x + group.x) * MEMBERS_PER_GROUP + slot;
    live = wanted < params.rows;
    member = min(wanted, params.rows - 1u);
    problem_index = problem_of(member);
    //% for k in range(PARAMETERS)
    model_parameters[${k}] = problem[params.parameters + problem_index * params.parameters_stride + ${k}u];
    //% endfor
}

// The site that a lane holds in place i.
fn site(i: u32) -> u32 {
    //% if LANES > 1
    return (lane * SITES_PER_LANE + i) % N;
    //% else
    return i;
    //% endif
}

// Whether it owns that site, or repeats it.
fn owned(i: u32) -> bool {
    //% if LANES > 1
    return lane * SITES_PER_LANE + i < N;
    //% else
    return true;
    //% endif
}

fn load(at: u32) -> State {
    var x: State;
    //% for i in range(S)
    x[${i}] = states[(at * N + site(${i}u)) * params.capacity + member];
    //% endfor
    return x;
}

fn store(at: u32, x: State) {
    if (live) {
        //% for i in range(S)
        if (owned(${i}u)) {
            states[(at * N + site(${i}u)) * params.capacity + member] = x[${i}];
        }
        //% endfor
    }
}

// The state with its neighbours. With several lanes: through workgroup memory, so from uniform control flow only.
fn ring(x: State) -> Ring {
    var p: Ring;
    //% for i in range(S)
    p[${i + 2}] = x[${i}];
    //% endfor
    //% if LANES > 1
    workgroupBarrier();
    //% for i in range(S)
    if (owned(${i}u)) {
        shared_sites[site(${i}u) * MEMBERS_PER_GROUP + slot] = x[${i}];
    }
    //% endfor
    workgroupBarrier();
    let first = lane * SITES_PER_LANE;
    p[0] = shared_sites[((first + N - 2u) % N) * MEMBERS_PER_GROUP + slot];
    p[1] = shared_sites[((first + N - 1u) % N) * MEMBERS_PER_GROUP + slot];
    p[${S + 2}] = shared_sites[((first + SITES_PER_LANE) % N) * MEMBERS_PER_GROUP + slot];
    p[${S + 3}] = shared_sites[((first + SITES_PER_LANE + 1u) % N) * MEMBERS_PER_GROUP + slot];
    //% else
    p[0] = x[${S - 2}];
    p[1] = x[${S - 1}];
    p[${S + 2}] = x[0];
    p[${S + 3}] = x[1];
    //% endif
    return p;
}

// The sum of the lanes' values, on every lane; always in the same order.
fn over_lanes(value: real) -> real {
    //% if LANES > 1
    workgroupBarrier();
    shared_sites[lane * MEMBERS_PER_GROUP + slot] = value;
    //% for stride in LANE_STRIDES
    workgroupBarrier();
    if (lane < ${stride}u && lane + ${stride}u < LANES) {
        shared_sites[lane * MEMBERS_PER_GROUP + slot] += shared_sites[(lane + ${stride}u) * MEMBERS_PER_GROUP + slot];
    }
    //% endfor
    workgroupBarrier();
    return shared_sites[slot];
    //% else
    return value;
    //% endif
}

// x + a k
fn axpy(a: real, k: State, x: State) -> State {
    var y: State;
    //% for i in range(S)
    y[${i}] = fma(a, k[${i}], x[${i}]);
    //% endfor
    return y;
}

// Whether a number is below 2^55 in magnitude: the definition of a member that has not diverged. By exponent bits,
// since a compiler may assume that there is no NaN.
fn in_range(x: real) -> bool {
    return (bitcast<u32>(f32(x)) & 0x7f800000u) < 0x5b000000u;
}

// How many of a lane's values are out of range.
fn out_of_range(x: State) -> real {
    var count: real = 0.0;
    //% for i in range(S)
    count += select(real(1.0), ZERO, in_range(x[${i}]));
    //% endfor
    return count;
}
