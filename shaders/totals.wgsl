// Sums of block sums, over the blocks of a run: one workgroup per quantity and run. What leaves the device is one number per
// quantity and 4,096 members, or 65,536 where there are many. CPU: `Moments::merge`.

//% include "member.wgsl"

// Per block: see sums.wgsl. [quantity, block]
@group(0) @binding(4) var<storage, read_write> partials: array<real>;
// Per run, the same quantities: [run, quantity]
@group(0) @binding(5) var<storage, read_write> totals: array<real>;

struct Runs {
    blocks_per_problem: u32,
    runs_per_problem: u32,
    total: u32,              // blocks of the call
    count: u32,              // quantities times runs of the call
}
@group(0) @binding(6) var<uniform> runs: Runs;

const PARTS: u32 = 16u;
//% if not EXTENDED
const QUANTITIES: u32 = ${QUANTITIES}u;
//% endif
var<workgroup> parts: array<real, PARTS>;

fn add_up(local: u32, value: real) -> real {
    workgroupBarrier();
    parts[local] = value;
    workgroupBarrier();
    var sum: real = 0.0;
    for (var k = 0u; k < PARTS; k++) {
        sum += parts[k];
    }
    return sum;
}

@compute @workgroup_size(16)
fn add_totals(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = min(group.y * params.groups_x + group.x, runs.count - 1u);
    //% if EXTENDED
    let QUANTITIES = 5u + 5u * params.control;
    //% endif
    let q = id % QUANTITIES;
    let run = params.call_run + id / QUANTITIES;
    let p = run / runs.runs_per_problem;
    let within = (run % runs.runs_per_problem) * params.blocks_per_run;
    let start = p * runs.blocks_per_problem + within - params.call_block;
    let count = min(params.blocks_per_run, runs.blocks_per_problem - within);
    var s: real = 0.0;
    for (var k = local; k < count; k += PARTS) {
        s += partials[q * runs.total + start + k];
    }
    var total = add_up(local, s);
    if (q == 4u) {
        // Deviations from the blocks' means become deviations from the mean of all.
        var valid: real = 0.0;
        var cost: real = 0.0;
        for (var k = local; k < count; k += PARTS) {
            valid += partials[start + k];
            cost += partials[2u * runs.total + start + k] + partials[3u * runs.total + start + k];
        }
        let all = max(add_up(local, valid), real(1.0));
        let mean = add_up(local, cost) / all;
        var between: real = 0.0;
        for (var k = local; k < count; k += PARTS) {
            let n = partials[start + k];
            if (n > ZERO) {
                let c = partials[2u * runs.total + start + k] + partials[3u * runs.total + start + k];
                let d = c / n - mean;
                between = fma(n * d, d, between);
            }
        }
        total += add_up(local, between);
    }
    if (local == 0u) {
        totals[id] = total;
    }
}
