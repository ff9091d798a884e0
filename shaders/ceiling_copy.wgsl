// The ceiling of memory: one vector of 16 bytes from one buffer to the other per invocation. Host: gpu/ceiling.rs.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<u32>>;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&result)) {
        result[id.x] = source[id.x];
    }
}
