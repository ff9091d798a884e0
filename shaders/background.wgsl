// B^-1 (x0 - xb) for a full B: one invocation per member and row of the matrix.
// CPU: src/engine/cpu/sweep.rs, `CostTerms::background`.

//% include "member.wgsl"

@compute @workgroup_size(64)
fn background(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let row = id / params.capacity;
    let k = id % params.capacity;
    if (row >= N || k >= params.rows) {
        return;
    }
    let p = problem_of(k);
    var sum: real = 0.0;
    for (var j = 0u; j < N; j++) {
        //% if OWN_BACKGROUND
        let mean = states[(params.own_background * N + j) * params.capacity + k];
        //% else
        let mean = problem[params.mean + p * params.mean_stride + j];
        //% endif
        let d = states[j * params.capacity + k] - mean;
        sum = fma(problem[params.inverse + p * params.inverse_stride + row * N + j], d, sum);
    }
    states[(params.background * N + row) * params.capacity + k] = sum * problem[params.factor + p * params.factor_stride];
}
