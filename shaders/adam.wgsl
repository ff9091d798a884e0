// One Adam step of resident members, against the gradient that a reverse sweep left: one invocation per member
// and number of its control.
// A member that diverged stays where it is. CPU: src/engine/cpu/resident.rs, `update`.

//% include "member.wgsl"

// Control, background, and Adam's running means of g and g^2: [4, control, store_stride].
@group(0) @binding(5) var<storage, read_write> store_of_members: array<real>;
// [problem, control]
@group(0) @binding(6) var<storage, read> units: array<real>;
// Rate, beta1, 1 - beta1, beta2, 1 - beta2, the two bias corrections and epsilon of each step: [step, 8].
@group(0) @binding(7) var<storage, read> steps: array<real>;

@compute @workgroup_size(64)
fn adam(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let i = id / params.capacity;
    let k = id % params.capacity;
    if (i >= ${CONTROL} || k >= params.rows || costs[2u * params.capacity + k] != ZERO) {
        return;
    }
    let row = list[params.first_row + k];
    let unit = units[row.problem * ${CONTROL} + i];
    let at = params.first_step * 8u;
    let x_at = i * params.store_stride + row.store;
    let m_at = (2u * ${CONTROL} + i) * params.store_stride + row.store;
    let v_at = (3u * ${CONTROL} + i) * params.store_stride + row.store;
    let g = states[(params.cotangent * N + i) * params.capacity + k] * unit;
    let m = steps[at + 1u] * store_of_members[m_at] + steps[at + 2u] * g;
    let v = steps[at + 3u] * store_of_members[v_at] + steps[at + 4u] * g * g;
    let step = steps[at] * unit * (m * steps[at + 5u]) / (sqrt(v * steps[at + 6u]) + steps[at + 7u]);
    let x = states[i * params.capacity + k] - step;
    store_of_members[m_at] = m;
    store_of_members[v_at] = v;
    store_of_members[x_at] = x;
    states[i * params.capacity + k] = x;
}
