// Vectors of members on the columns of a factor of a scale of low rank: Z' eps, or W' g (LEFT), one invocation per member
// and column. CPU: src/engine/cpu/group.rs, `Multiply`, and src/engine/cpu/sums.rs, `project`.

//% include "member.wgsl"

// W of each problem, then Z: [2, problem, control, rank].
@group(0) @binding(4) var<storage, read> factors: array<real>;

@compute @workgroup_size(64)
fn project(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let column = id / params.capacity;
    let k = id % params.capacity;
    if (column >= params.rank || k >= params.rows) {
        return;
    }
    let p = (params.first_row + k) / params.per_problem;
    let left = (params.flags & LEFT) != 0u;
    let first = select(arrayLength(&factors) / 2u, 0u, left) + p * ${CONTROL} * params.rank + column;
    let vector = select(params.epsilon, params.cotangent, left) * N;
    var sum: real = 0.0;
    for (var i = 0u; i < ${CONTROL}; i++) {
        sum = fma(factors[first + i * params.rank], states[(vector + i) * params.capacity + k], sum);
    }
    let place = params.projections * N + select(0u, params.rank, left) + column;
    states[place * params.capacity + k] = sum;
}
