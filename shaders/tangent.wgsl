// One segment of a tangent sweep: one invocation per member and lane. Carries a state and a perturbation, and stores
// the perturbation at the stored times. CPU: src/engine/cpu/sweep.rs, `Sweep::tangent`.

//% include "member.wgsl"
//% include MODEL ~ ".wgsl"
//% include "rk4.wgsl"

@compute @workgroup_size(${GROUP})
fn tangent(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    place(local, group);
    var pair: Pair;
    pair.x = load(params.state);
    pair.dx = load(params.cotangent);
    for (var s = 0u; s < params.steps; s++) {
        let now = params.first_step + s;
        if (now % params.steps_per_time == 0u) {
            store(params.at_times + now / params.steps_per_time, pair.dx);
        }
        pair = step_tangent(pair.x, pair.dx);
    }
    if ((params.flags & LAST) != 0u) {
        store(params.at_times + (params.first_step + params.steps) / params.steps_per_time, pair.dx);
    }
    store(params.next_state, pair.x);
    store(params.cotangent, pair.dx);
}
