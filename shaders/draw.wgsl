// Draws members from the affine map c = m + s eps: one invocation per member and four numbers of its control. Writes c from
// the first slot on, and eps from the slot `epsilon` on where something reads it (EPSILON).
// CPU: src/engine/cpu/group.rs, `Group::load_control`.

//% include "member.wgsl"
//% include "random.wgsl"

// m, then s, of each problem: [problem, 2, control].
@group(0) @binding(4) var<storage, read> map: array<real>;
// Stream and iteration, then the two words of each problem's seed.
@group(0) @binding(5) var<storage, read> keys: array<u32>;

@compute @workgroup_size(64)
fn draw(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let quad = id / params.capacity;
    let k = id % params.capacity;
    if (quad * 4u >= ${CONTROL} || k >= params.rows) {
        return;
    }
    let row = params.first_row + k;
    let p = row / params.per_problem;
    let key = vec2<u32>(keys[2u + 2u * p], keys[3u + 2u * p]);
    let z = normals(key, vec4<u32>(quad, row % params.per_problem, keys[1], keys[0]));
    for (var j = 0u; j < 4u; j++) {
        let i = quad * 4u + j;
        if (i < ${CONTROL}) {
            let epsilon = real(z[j]);
            states[i * params.capacity + k] = fma(map[(2u * p + 1u) * ${CONTROL} + i], epsilon, map[2u * p * ${CONTROL} + i]);
            if ((params.flags & EPSILON) != 0u) {
                states[(params.epsilon * N + i) * params.capacity + k] = epsilon;
            }
        }
    }
}
