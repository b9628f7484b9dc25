use super::*;

fn memory_log(dir: &Path) -> Log {
    Log::open(&dir.join("pod/c/0.log"))
}

fn written(log: &mut Log) -> String {
    log.flush();
    fs::read_to_string(log.path.as_ref().unwrap()).unwrap()
}

#[test]
fn times_agree_with_a_library() {
    for seconds in [0, 951_782_399, 951_782_400, 1_709_164_800, 1_767_323_045, 4_102_444_799, 13_569_465_600]
    {
        let expected =
            jiff::Timestamp::from_second(seconds).unwrap().strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let time = Duration::new(u64::try_from(seconds).unwrap(), 5);
        assert_eq!(Rfc3339(time).to_string(), format!("{expected}.000000005Z"));
    }
}

#[test]
fn lines_become_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = memory_log(dir.path());
    let mut out = Lines::new(Stream::Stdout);
    let mut err = Lines::new(Stream::Stderr);
    let now = Duration::from_secs(1);
    out.push(b"one\ntw", now, &mut log);
    err.push(b"bad\n", now, &mut log);
    out.push(b"o\n\nend", now, &mut log);
    out.finish(now, &mut log);
    let at = "1970-01-01T00:00:01.000000000Z";
    assert_eq!(
        written(&mut log),
        format!(
            "{at} stdout F one\n{at} stderr F bad\n{at} stdout F two\n{at} stdout F \n{at} stdout F end\n"
        )
    );
}

#[test]
fn long_lines_are_cut_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = memory_log(dir.path());
    let mut lines = Lines::new(Stream::Stdout);
    let mut data = vec![b'x'; LINE_BYTES_MAX * 2];
    data.extend_from_slice(b"yy\n");
    for chunk in data.chunks(5_000) {
        lines.push(chunk, Duration::ZERO, &mut log);
    }
    // A line of exactly the limit is whole.
    lines.push(&[vec![b'z'; LINE_BYTES_MAX], b"\n".to_vec()].concat(), Duration::ZERO, &mut log);
    let text = written(&mut log);
    let shape: Vec<_> = text
        .lines()
        .map(|line| {
            let mut fields = line.splitn(4, ' ');
            (fields.nth(2).unwrap().to_owned(), fields.next().unwrap().len())
        })
        .collect();
    let tag = |t: &str, n| (t.to_owned(), n);
    assert_eq!(
        shape,
        [tag("P", LINE_BYTES_MAX), tag("P", LINE_BYTES_MAX), tag("F", 2), tag("F", LINE_BYTES_MAX)]
    );
}

#[test]
fn files_are_rotated_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = memory_log(dir.path());
    log.bytes_max = 100;
    let mut lines = Lines::new(Stream::Stdout);
    for n in 0..20 {
        lines.push(format!("line {n} {}\n", "-".repeat(80)).as_bytes(), Duration::ZERO, &mut log);
        log.flush();
    }
    let mut names: Vec<_> = fs::read_dir(dir.path().join("pod/c"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["0.log", "0.log.1", "0.log.2", "0.log.3", "0.log.4"]);
    assert!(fs::read_to_string(dir.path().join("pod/c/0.log")).unwrap().contains("line 19 "));
    assert!(fs::read_to_string(dir.path().join("pod/c/0.log.1")).unwrap().contains("line 18 "));
}

#[test]
fn without_a_path_nothing_is_kept() {
    let mut log = Log::open(Path::new(""));
    Lines::new(Stream::Stdout).push(b"x\n", Duration::ZERO, &mut log);
    assert!(log.records.is_empty());
    log.flush();
}
