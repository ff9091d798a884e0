// How a member lies over invocations: ${LANES} lane(s) of ${S} consecutive sites each, its ${N} sites on a ring.
// The last lane owns ${OWNED} of its sites; what it holds beyond the ring repeats the ring's beginning, and computes the
// same numbers.

//% include "member.wgsl"

const SITES_PER_LANE: u32 = ${S}u;
const LANES: u32 = ${LANES}u;
const MEMBERS_PER_GROUP: u32 = ${MEMBERS_PER_GROUP}u;
const GROUP: u32 = ${GROUP}u;            // invocations per workgroup

alias State = array<real, ${S}>;         // the sites of one lane
//% if RING
alias Ring = array<real, ${S + 4}>;      // the same with two neighbours on either side: site i is at i + 2
//% else
alias Ring = State;                      // of a model whose sites are no ring, with no more: site i is at i
//% endif

struct Invocation {
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    //% if HALO == "subgroup"
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) in_subgroup: u32,
    //% endif
}

var<private> member: u32;      // within the chunk
var<private> live: bool;       // false for the spare members of the last workgroup, which repeat the last one
var<private> problem_index: u32;
var<private> lane: u32;
var<private> invocation: u32;  // of the dispatch
//% if LANES > 1
// Where the neighbouring lanes of the member are: in the workgroup, or in the subgroup.
var<private> left: u32;
var<private> right: u32;
//% endif
var<private> model_parameters: array<real, ${PARAMETERS}>;
// What the loops use again and again: a compiler may not keep what it reads from a buffer beyond a store or a barrier.
var<private> half_dt: real;
var<private> dt: real;
var<private> sixth_dt: real;
//% if HALO == "workgroup"
var<private> own: u32;
// What lanes tell their neighbours: two turns, so that one barrier does for an exchange; what goes to the right, then
// what goes to the left, two sites each: [turn, 4, GROUP].
var<workgroup> edges: array<real, ${8 * GROUP}>;
//% elif HALO == "subgroup"
var<private> in_subgroup: u32;
var<private> members_per_subgroup: u32;
//% endif

// Whether a workgroup has a member. The others, left over from folding a dispatch into two dimensions, do nothing.
fn has_members(group: vec3<u32>) -> bool {
    return (group.y * params.groups_x + group.x) * MEMBERS_PER_GROUP < params.rows;
}

// Members next to each other, since they are in memory too: within a workgroup, or within a subgroup.
fn place(at: Invocation) {
    let group = at.group.y * params.groups_x + at.group.x;
    //% if HALO == "subgroup"
    in_subgroup = at.in_subgroup;
    members_per_subgroup = at.subgroup_size / LANES;
    lane = in_subgroup / members_per_subgroup;
    let slot = at.subgroup * members_per_subgroup + in_subgroup % members_per_subgroup;
    let around = (LANES - 1u) * members_per_subgroup;
    left = select(in_subgroup - members_per_subgroup, in_subgroup + around, lane == 0u);
    right = select(in_subgroup + members_per_subgroup, in_subgroup - around, lane == LANES - 1u);
    //% elif HALO == "workgroup"
    own = at.local;
    lane = own / MEMBERS_PER_GROUP;
    let slot = own % MEMBERS_PER_GROUP;
    let around = (LANES - 1u) * MEMBERS_PER_GROUP;
    left = select(own - MEMBERS_PER_GROUP, own + around, lane == 0u);
    right = select(own + MEMBERS_PER_GROUP, own - around, lane == LANES - 1u);
    //% else
    lane = 0u;
    let slot = at.local;
    //% endif
    let wanted = group * MEMBERS_PER_GROUP + slot;
    live = wanted < params.rows;
    member = min(wanted, params.rows - 1u);
    invocation = group * GROUP + at.local;
    problem_index = problem_of(member);
    half_dt = problem[0];
    dt = problem[1];
    sixth_dt = problem[2];
    //% for k in range(PARAMETERS)
    //% if ESTIMATED
    model_parameters[${k}] = states[(params.control - ${PARAMETERS - k}u) * params.capacity + member];
    //% else
    model_parameters[${k}] = problem[params.parameters + problem_index * params.parameters_stride + ${k}u];
    //% endif
    //% endfor
}

// The site that a lane holds in place i.
fn site(i: u32) -> u32 {
    //% if LANES == 1
    return i;
    //% elif OWNED == S
    return lane * SITES_PER_LANE + i;
    //% else
    let site = lane * SITES_PER_LANE + i;
    return select(site, site - N, site >= N);
    //% endif
}

// Whether it owns that site, or repeats it.
fn owned(i: u32) -> bool {
    //% if OWNED == S
    return true;
    //% else
    return i < ${OWNED}u || lane != LANES - 1u;
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

// A state with its neighbours: with two on either side, with what the tendency reads, and with what its adjoint reads
// of the cotangent. Turns alternate between 0 and 1. With several lanes: from uniform control flow only.
//% for name, before, after in [["ring", 2, 2], ["ring_ahead", BEFORE, AFTER], ["ring_back", AFTER, BEFORE]]
fn ${name}(x: State, turn: u32) -> Ring {
    //% if not RING
    return x;
    //% else
    var p: Ring;
    //% for i in range(S)
    p[${i + 2}] = x[${i}];
    //% endfor
    //% if LANES == 1
    p[0] = x[${S - 2}];
    p[1] = x[${S - 1}];
    p[${S + 2}] = x[0];
    p[${S + 3}] = x[1];
    //% else
    //% if OWNED == S
    let to_right_0 = x[${S - 2}];
    let to_right_1 = x[${S - 1}];
    let to_left_0 = x[0];
    let to_left_1 = x[1];
    //% else
    // The last lane's own sites end earlier, and those that it repeats need what follows them.
    let is_first = lane == 0u;
    let is_last = lane == LANES - 1u;
    let to_right_0 = select(x[${S - 2}], x[${OWNED - 2}], is_last);
    let to_right_1 = select(x[${S - 1}], x[${OWNED - 1}], is_last);
    let to_left_0 = select(x[0], x[${S - OWNED}], is_first);
    let to_left_1 = select(x[1], x[${S - OWNED + 1}], is_first);
    //% endif
    //% if HALO == "subgroup"
    //% if before > 1
    p[0] = subgroupShuffle(to_right_0, left);
    //% endif
    p[1] = subgroupShuffle(to_right_1, left);
    p[${S + 2}] = subgroupShuffle(to_left_0, right);
    //% if after > 1
    p[${S + 3}] = subgroupShuffle(to_left_1, right);
    //% endif
    //% else
    let at = turn * ${4 * GROUP}u;
    //% if before > 1
    edges[at + own] = to_right_0;
    //% endif
    edges[at + ${GROUP}u + own] = to_right_1;
    edges[at + ${2 * GROUP}u + own] = to_left_0;
    //% if after > 1
    edges[at + ${3 * GROUP}u + own] = to_left_1;
    //% endif
    workgroupBarrier();
    //% if before > 1
    p[0] = edges[at + left];
    //% endif
    p[1] = edges[at + ${GROUP}u + left];
    p[${S + 2}] = edges[at + ${2 * GROUP}u + right];
    //% if after > 1
    p[${S + 3}] = edges[at + ${3 * GROUP}u + right];
    //% endif
    //% endif
    //% endif
    return p;
    //% endif
}

//% endfor
// The sum of the lanes' values, on every lane; always in the same order.
fn over_lanes(value: real) -> real {
    //% if HALO == "subgroup"
    var sum = value;
    //% for stride in LANE_STRIDES
    sum += subgroupShuffle(sum, in_subgroup ^ (${stride}u * members_per_subgroup));
    //% endfor
    return sum;
    //% elif HALO == "workgroup"
    workgroupBarrier();
    edges[own] = value;
    //% for stride in LANE_STRIDES
    workgroupBarrier();
    if (lane < ${stride}u && lane + ${stride}u < LANES) {
        edges[own] += edges[own + ${stride * MEMBERS_PER_GROUP}u];
    }
    //% endfor
    workgroupBarrier();
    let sum = edges[own % MEMBERS_PER_GROUP];
    workgroupBarrier();
    return sum;
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

// How many of a lane's values are out of range.
fn out_of_range(x: State) -> real {
    var count: real = 0.0;
    //% for i in range(S)
    count += select(real(1.0), ZERO, in_range(x[${i}]));
    //% endfor
    return count;
}
