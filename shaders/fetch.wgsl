// Brings resident members from where they are kept: x0 into the first slot, their own backgrounds into a slot of their
// own. One invocation per member and site. CPU: src/engine/cpu/resident.rs, `read`.

//% include "member.wgsl"

// x0, xb, and Adam's running means of g and g^2: [4, site, store_stride].
@group(0) @binding(5) var<storage, read> store_of_members: array<real>;

@compute @workgroup_size(64)
fn fetch(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let i = id / params.capacity;
    let k = id % params.capacity;
    if (i >= N || k >= params.rows) {
        return;
    }
    let at = list[params.first_row + k].store;
    states[i * params.capacity + k] = store_of_members[i * params.store_stride + at];
    states[(params.own_background * N + i) * params.capacity + k] = store_of_members[(N + i) * params.store_stride + at];
}
