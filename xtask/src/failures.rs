//! What of the long output of tests says why they failed.

/// How many lines of a test that failed are told.
const LINES: usize = 16;

/// What libtest prints behind all results of each test that failed, without backtraces; empty if none did.
pub(crate) fn of(output: &str) -> String {
    let mut told = String::new();
    let (mut is_told, mut lines) = (false, 0);
    for line in output.lines() {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            (is_told, lines) = (true, 0);
        } else if line == "failures:" || line == "stack backtrace:" {
            is_told = false;
        }
        if is_told && lines < LINES && !line.trim().is_empty() {
            told.push_str(line);
            told.push('\n');
            lines += 1;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_that_failed_is_told_with_its_words() {
        let long: String = (0..99).map(|n| format!("line {n}\n")).collect();
        let output = format!(
            "running 3 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\nthread 'b' panicked\n\
             left: 1\nstack backtrace:\n   0: main\n\n---- c::d stdout ----\n{long}\n\nfailures:\n    b\n    c::d\n\ntest \
             result: FAILED. 1 passed\n---- no test\n"
        );
        let told = of(&output);
        assert!(
            told.starts_with("---- b stdout ----\nthread 'b' panicked\nleft: 1\n---- c::d stdout ----\nline 0\n"),
            "{told}"
        );
        assert!(told.ends_with("line 14\n"), "{told}");
        assert_eq!(of("running 1 test\ntest a ... ok\n"), "");
    }
}
