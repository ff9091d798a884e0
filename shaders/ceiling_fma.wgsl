// The ceiling of arithmetic: 16 independent chains of multiply-adds in registers, x = x a + b, 128 of them a round.
// The host puts `alias real` and `alias real4` in front. Host and CPU counterpart: gpu/ceiling.rs, cpu/ceiling.rs.

@group(0) @binding(0) var<storage, read> numbers: array<real>;    // a, b
@group(0) @binding(1) var<storage, read_write> result: array<real>;
@group(0) @binding(2) var<uniform> rounds: vec4<u32>;

@compute @workgroup_size(64)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
    let a = real4(numbers[0]);
    let b = real4(numbers[1]);
    var p = real4(real(id.x));
    var q = p + b;
    var r = q + b;
    var s = r + b;
    for (var round = 0u; round < rounds.x; round++) {
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
        p = fma(p, a, b); q = fma(q, a, b); r = fma(r, a, b); s = fma(s, a, b);
    }
    let sum = (p + q) + (r + s);
    result[id.x] = (sum.x + sum.y) + (sum.z + sum.w);
}
