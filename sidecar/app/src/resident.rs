//! Gives back the memory of code that ran only at the start: the kernel maps a program's pages in clumps, and most of what starting
//! needed is never run again. The pages stay in the page cache, so what is needed after all costs a minor fault.
//!
//! A system module: it calls `madvise` and `malloc_trim`.

use std::fs;

/// The path of this program in its own list of mappings.
const PROGRAM: &str = "/proc/self/exe";

/// Unmaps the program's code and constants from this process until they are used again.
pub(crate) fn release_code() {
    let Ok(program) = fs::read_link(PROGRAM) else { return };
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    for range in droppable(&maps, &program.to_string_lossy()) {
        drop_pages(&range);
    }
}

/// Returns to the system what the allocator holds and nobody uses.
#[expect(unsafe_code, reason = "`malloc_trim` has no safe wrapper")]
pub(crate) fn release_heap() {
    // SAFETY: the function takes the allocator's own locks and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// The ranges of a program's file that were never written: its code, and the constants in front of it. What follows the code was
/// relocated by the loader: dropping that would undo it.
fn droppable(maps: &str, program: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(addresses), Some(permissions)) = (fields.next(), fields.next()) else { continue };
        if fields.nth(3) != Some(program) {
            continue;
        }
        let code = permissions == "r-xp";
        if permissions != "r--p" && !code {
            break;
        }
        let parse = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) =
            addresses.split_once('-').map(|(start, end)| (parse(start), parse(end)))
        {
            ranges.push(start..end);
        }
        if code {
            return ranges;
        }
    }
    // Without code at the end this is not the layout that is known to be safe.
    Vec::new()
}

#[expect(unsafe_code, reason = "`madvise` has no safe wrapper")]
fn drop_pages(range: &std::ops::Range<usize>) {
    // SAFETY: the range is a private mapping of this program's file that nothing ever writes, so MADV_DONTNEED only makes the next
    // access read the same bytes from the page cache again. The kernel refuses a range that is not mapped.
    let done = unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) };
    if done != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "Code pages cannot be given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_is_dropped() {
        let maps = "10000-20000 r--p 00000000 00:01 7   /sidecar\n\
                    20000-50000 r-xp 00010000 00:01 7   /sidecar\n\
                    50000-60000 r--p 00040000 00:01 7   /sidecar\n\
                    60000-61000 rw-p 00050000 00:01 7   /sidecar\n\
                    70000-80000 rw-p 00000000 00:00 0   [heap]\n";
        assert_eq!(droppable(maps, "/sidecar"), [0x10000..0x20000, 0x20000..0x50000]);
        assert!(droppable(maps, "/other").is_empty());
        assert!(droppable("1-2 r--p 0 0:0 1 /sidecar\n2-3 rw-p 0 0:0 1 /sidecar\n", "/sidecar").is_empty());
    }

    #[test]
    fn the_program_runs_on() {
        release_code();
        let text: String = (0..100).map(|number| number.to_string()).collect();
        assert!(text.ends_with("99"));
    }
}
