// Adds W (Z' eps) to m + d eps in the first slots: one invocation per member and number of its control.
// CPU: src/engine/cpu/group.rs, `Multiply`.

//% include "member.wgsl"

// W of each problem, then Z: [2, problem, control, rank].
@group(0) @binding(4) var<storage, read> factors: array<real>;

@compute @workgroup_size(64)
fn add_low_rank(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let i = id / params.capacity;
    let k = id % params.capacity;
    if (i >= ${CONTROL} || k >= params.rows) {
        return;
    }
    let p = (params.first_row + k) / params.per_problem;
    let first = (p * ${CONTROL} + i) * params.rank;
    var sum: real = 0.0;
    for (var c = 0u; c < params.rank; c++) {
        sum = fma(factors[first + c], states[(params.projections * N + c) * params.capacity + k], sum);
    }
    states[i * params.capacity + k] += sum;
}
