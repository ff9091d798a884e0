// From what the control holds to the model's errors, eta_k = Q^1/2 xi_k (and a perturbation likewise), or the way back
// (TRANSPOSED): from the cotangents of errors to those of xi, with the prior's part where it is wanted. One invocation per
// member and number of some errors: first_step .. first_step + steps, from the slots from `state` on to those from
// `next_state` on. CPU: src/engine/cpu/group.rs, `Group::colour`.

//% include "member.wgsl"

@compute @workgroup_size(64)
fn colour(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let row = id / params.capacity;
    let k = id % params.capacity;
    if (row >= params.steps * N || k >= params.rows) {
        return;
    }
    let error = params.first_step + row / N;
    let i = row % N;
    let root = params.error_root + problem_of(k) * params.error_root_stride;
    let transposed = (params.flags & TRANSPOSED) != 0u;
    var sum: real = 0.0;
    // An error beyond the sweep has no cotangent.
    if (!transposed || error < params.error_count) {
        let first = (params.state + error) * N;
        //% if FULL_ERRORS
        let end = select(i + 1u, N, transposed);
        for (var j = select(0u, i, transposed); j < end; j++) {
            let at = select(i * N + j, j * N + i, transposed);
            sum = fma(problem[root + at], states[(first + j) * params.capacity + k], sum);
        }
        //% else
        sum = problem[root + i] * states[(first + i) * params.capacity + k];
        //% endif
    }
    if (transposed) {
        if ((params.flags & BACKGROUND) != 0u) {
            let xi = states[((1u + error) * N + i) * params.capacity + k];
            //% if OWN_BACKGROUND
            sum += xi - states[((params.own_background + 1u + error) * N + i) * params.capacity + k];
            //% else
            sum += xi;
            //% endif
        }
        // Whoever finds one writes the same.
        if (!in_range(sum)) {
            costs[2u * params.capacity + k] = real(1.0);
        }
    }
    states[((params.next_state + error) * N + i) * params.capacity + k] = sum;
}
