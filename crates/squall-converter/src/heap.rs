//! Gives memory that is free back to the system.
//!
//! The only file of this crate with unsafe code. The allocator of glibc keeps what was freed between what lives, and before 2.38 does not use
//! it again for arrays, which are aligned: runs and buckets of 100 MiB took 290, and with those of the pass before 350.
#![allow(unsafe_code)]

/// Has the allocator give back the pages that nothing lives in. It takes some milliseconds: it is for the end of a run or a bucket.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and no pointer, may be called by any thread at any time, and moves nothing that lives.
    unsafe {
        libc::malloc_trim(0);
    }
}
