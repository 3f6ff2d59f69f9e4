// What the cores of a matrix product share that multiply vectors of four in f32.
#import accumulate
#import product

alias x_vector = elem4;
alias w_vector = weight4;
const VECTOR_FOURS: u32 = 1u;

fn load_x(run: Run, c4: u32) -> vec4f {
    if !has_x(run, c4) {
        return vec4f(0.0);
    }
    return load(read_x(run, c4));
}

// Four rows of w, from vector `first` on.
fn read_weights(first: u32) -> Weights {
    let step = step_w();
    return Weights(
        load_weight(w[first]),
        load_weight(w[first + step]),
        load_weight(w[first + 2u * step]),
        load_weight(w[first + 3u * step]),
    );
}
