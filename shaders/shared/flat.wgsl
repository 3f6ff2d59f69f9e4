// One thread per vector of four: the index of this thread's vector, in a grid folded over two dimensions (see
// `ops::fold_groups`). Threads past the end get an index past the end.
const FLAT_THREADS: u32 = 256u;

fn flat_index(group: vec3u, groups: vec3u, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * FLAT_THREADS + local;
}
