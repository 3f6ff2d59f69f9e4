// y[r, t, :] = table[ids[r, t], :] + positions[t, :]. One thread per vector of four.
#import flat

struct Params {
    vectors: u32, // of y
    tokens: u32, // ids in one row
    entries: u32, // rows of the table
    row: u32, // vectors of one entry
}

@group(0) @binding(0) var<storage, read> ids: array<vec4u>; // [rows, tokens/4]
@group(0) @binding(1) var<storage, read> weights: array<weight4>; // [entries, row], if the table is of parameters
@group(0) @binding(2) var<storage, read> activations: array<elem4>; // [entries, row], if it is of activations
@group(0) @binding(3) var<storage, read> positions: array<weight4>; // [at least tokens, row]
@group(0) @binding(4) var<storage, read_write> y: array<elem4>; // [rows, tokens, row]
@group(0) @binding(5) var<uniform> params: Params;

override TABLE_IS_WEIGHT: bool = true;
override HAS_POSITIONS: bool = false;

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i >= params.vectors {
        return;
    }
    let vector = i % params.row;
    let token = i / params.row;
    let t = token % params.tokens;
    let id = ids[(token / params.tokens) * ((params.tokens + 3u) / 4u) + t / 4u][t % 4u];
    let source = min(id, params.entries - 1u) * params.row + vector;
    var v = vec4f();
    if TABLE_IS_WEIGHT {
        v = load_weight(weights[source]);
    } else {
        v = load(activations[source]);
    }
    if HAS_POSITIONS {
        v += load_weight(positions[t * params.row + vector]);
    }
    y[i] = store(v);
}
