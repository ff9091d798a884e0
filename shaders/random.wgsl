// Philox4x32-10 and Box-Muller normals. CPU: src/random.rs, line by line. Always f32, with no built-in logarithm, sine
// or cosine: adapters may differ in those by 2^-11.

//% if WIDE_INTEGERS
// The 64 bits of a * b, high word first: one instruction on many GPUs.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let product = u64(a) * u64(b);
    return vec2<u32>(u32(product >> 32u), u32(product));
}
//% else
// The 64 bits of a * b, high word first, from four products of 16 bits.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 16u);
    let middle2 = a0 * b1 + (middle & 0xffffu);
    return vec2<u32>(a1 * b1 + (middle >> 16u) + (middle2 >> 16u), a * b);
}
//% endif

fn philox(key: vec2<u32>, counter: vec4<u32>) -> vec4<u32> {
    var k = key;
    var c = counter;
    for (var round = 0u; round < 10u; round++) {
        let a = multiply_wide(c.x, 0xD2511F53u);
        let b = multiply_wide(c.z, 0xCD9E8D57u);
        c = vec4<u32>(b.x ^ c.y ^ k.x, b.y, a.x ^ c.w ^ k.y, a.y);
        k += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

// log(u) of a normal float u > 0.
fn log_of(u: f32) -> f32 {
    let bits = bitcast<u32>(u);
    let e = bitcast<i32>(bits - 0x3F3504F3u) >> 23u;
    let f = bitcast<f32>(bits - bitcast<u32>(e << 23u)) - 1.0;
    var p = 0.069716115;
    p = p * f - 0.11479734;
    p = p * f + 0.1168542;
    p = p * f - 0.12425687;
    p = p * f + 0.14249058;
    p = p * f - 0.16667802;
    p = p * f + 0.20000716;
    p = p * f - 0.24999997;
    p = p * f + 0.3333333;
    let f2 = f * f;
    let small = f2 * (f * p - 0.5);
    return f32(e) * 0.6931472 + (f + small);
}

// (sin, cos) of 2 pi k / 2^24.
fn sin_cos_turns(k: i32) -> vec2<f32> {
    let quadrant = (k + 0x200000) >> 22u;
    let f = f32(k - (quadrant << 22u)) * 5.9604645e-8;
    let z = f * f;
    var s = 41.472834;
    s = s * z - 76.69787;
    s = s * z + 81.605205;
    s = s * z - 41.341702;
    s = s * z + 6.2831855;
    s = s * f;
    var c = 59.22017;
    c = c * z - 85.442845;
    c = c * z + 64.939316;
    c = c * z - 19.739209;
    c = c * z + 1.0;
    let odd = (quadrant & 1) != 0;
    let a = select(s, c, odd);
    let b = select(c, s, odd);
    return vec2<f32>(select(a, -a, (quadrant & 2) != 0), select(b, -b, ((quadrant + 1) & 2) != 0));
}

fn box_muller(a: u32, b: u32) -> vec2<f32> {
    let r = sqrt(-2.0 * log_of(f32((a >> 8u) + 1u) * 5.9604645e-8));
    let turn = sin_cos_turns(bitcast<i32>(b >> 8u));
    return vec2<f32>(r * turn.y, r * turn.x);
}

fn normals(key: vec2<u32>, counter: vec4<u32>) -> vec4<f32> {
    let bits = philox(key, counter);
    return vec4<f32>(box_muller(bits.x, bits.y), box_muller(bits.z, bits.w));
}
