//! Every target over its seeds and seeded mutations: for `FUZZ_SECONDS` (30) shared by all, from `FUZZ_SEED` (1); only `FUZZ_TARGET`; each input is kept in
//! the file `FUZZ_KEEP` before it is tried.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tests_fuzz::{Mutator, targets};

/// One input may take so long; longer is a hang. Other tests run beside this one on few processors.
const SLOW: Duration = Duration::from_secs(2);
/// Memory of this process may grow by so much over all targets.
const GROWTH_BYTES: u64 = 256 << 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn no_input_breaks_a_reader() {
    let all = targets();
    assert!(all.len() >= 30, "{} targets", all.len());
    let only = std::env::var("FUZZ_TARGET").ok();
    let picked: Vec<_> =
        all.iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)).collect();
    assert!(!picked.is_empty(), "no target of that name");
    let share = Duration::from_secs(number("FUZZ_SECONDS", 30)) / u32::try_from(picked.len()).unwrap();
    let keep = std::env::var_os("FUZZ_KEEP");
    let seed = number("FUZZ_SEED", 1);
    for target in picked {
        let seeds = target.all_seeds().unwrap();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let before = resident();
        let end = Instant::now() + share;
        let mut runs = 0;
        let mut attempt = |input: &[u8]| {
            // What ends the whole process, such as a stack that overflows, can be found only so.
            if let Some(path) = &keep {
                std::fs::write(path, input).unwrap();
            }
            let began = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
            assert!(
                outcome.is_ok(),
                "{} seed {seed}: panic on {:?}\nas text {:?}",
                target.name,
                input,
                String::from_utf8_lossy(input)
            );
            assert!(
                began.elapsed() < SLOW,
                "{} seed {seed}: {:?} for {input:?}",
                target.name,
                began.elapsed()
            );
            runs += 1;
        };
        for input in &seeds {
            attempt(input);
        }
        let mut mutator = Mutator::new(seed, seeds);
        while Instant::now() < end {
            attempt(&mutator.input());
        }
        let growth = resident().saturating_sub(before);
        println!("{}: {runs} inputs, peak +{} KiB", target.name, growth / 1024);
        assert!(growth < GROWTH_BYTES, "{}: memory grew by {growth} bytes", target.name);
    }
}
