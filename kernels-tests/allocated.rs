//! How much memory a piece of code takes: the allocator of the tests counts for each thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that are allocated, and the most of them at one time. What another thread frees is not counted.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    let add = |held: &Cell<(isize, isize)>| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    };
    // At the end of a thread there is nowhere to count.
    let _ = HELD.try_with(add);
}

// SAFETY: every call is passed on to the system's allocator as it is, whose promises are this one's. Counting
// allocates nothing: the thread's cell is initialised at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What `run` returns, and the most bytes that it held at one time on this thread.
pub fn most<T>(run: impl FnOnce() -> T) -> (T, usize) {
    HELD.set((0, 0));
    let result = run();
    (result, HELD.get().1 as usize)
}
