// y[b, i, j] = x[b, floor(i * H_in/H_out), floor(j * W_in/W_out)]: nearest neighbour. One thread per vector of four.
#import flat
#import nearest

struct Params {
    vectors: u32, // of y
    in_height: u32,
    in_width: u32,
    out_height: u32,
    out_width: u32,
    row: u32, // vectors of one pixel
    y_scale: f32, // H_in / H_out
    x_scale: f32, // W_in / W_out
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, in_height, in_width, row]
@group(0) @binding(1) var<storage, read_write> y: array<elem4>; // [batch, out_height, out_width, row]
@group(0) @binding(2) var<uniform> params: Params;

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
    let pixel = i / params.row;
    let line = pixel / params.out_width;
    let source_x = nearest(pixel % params.out_width, params.x_scale, params.in_width);
    let source_y = nearest(line % params.out_height, params.y_scale, params.in_height);
    let source = ((line / params.out_height) * params.in_height + source_y) * params.in_width + source_x;
    y[i] = x[source * params.row + i % params.row];
}
