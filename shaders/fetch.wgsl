// Brings resident members from where they are kept: their controls into the first slots, their own backgrounds into slots
// of their own. One invocation per member and number of its control. CPU: src/engine/cpu/resident.rs, `read`.

//% include "member.wgsl"

// Control, background, and Adam's running means of g and g^2: [4, control, store_stride].
@group(0) @binding(5) var<storage, read> store_of_members: array<real>;

@compute @workgroup_size(64)
fn fetch(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let i = id / params.capacity;
    let k = id % params.capacity;
    if (i >= ${CONTROL} || k >= params.rows) {
        return;
    }
    let at = list[params.first_row + k].store;
    states[i * params.capacity + k] = store_of_members[i * params.store_stride + at];
    states[(params.own_background * N + i) * params.capacity + k] = store_of_members[(${CONTROL} + i) * params.store_stride + at];
}
