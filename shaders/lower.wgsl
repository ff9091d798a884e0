// Adds L eps to the mean in the first slots: one invocation per member and row of the lower triangular L.
// CPU: src/engine/cpu/group.rs, `Group::load_control`.

//% include "member.wgsl"

// L of each problem, or one for all: [1 or problem, control, control].
@group(0) @binding(4) var<storage, read> lower: array<real>;

@compute @workgroup_size(64)
fn multiply_lower(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let row = id / params.capacity;
    let k = id % params.capacity;
    if (row >= ${CONTROL} || k >= params.rows) {
        return;
    }
    let p = (params.first_row + k) / params.per_problem;
    let first = select(0u, p * ${CONTROL} * ${CONTROL}, arrayLength(&lower) >= 2u * ${CONTROL} * ${CONTROL}) + row * ${CONTROL};
    var sum: real = 0.0;
    for (var j = 0u; j <= row; j++) {
        sum = fma(lower[first + j], states[(params.epsilon * N + j) * params.capacity + k], sum);
    }
    states[row * params.capacity + k] += sum;
}
