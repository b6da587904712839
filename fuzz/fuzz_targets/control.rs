//! Any bytes, in any pieces, to the control socket's reader of requests; any line to the reader of
//! answers.
#![no_main]

use chiton_core::devices::Limits;
use chiton_kvm::control::Lines;
use chiton_kvm::control::protocol::{Answer, LimitsValue, MAX_REQUEST, Request, RequestError};
use libfuzzer_sys::fuzz_target;

/// What is read is written and read back the same, and can be acted upon.
fn check(request: &Request) {
    let line = request.line();
    let (end, line) = line.split_last().expect("a line has an end");
    assert_eq!(*end, b'\n');
    // What is written without a space can be longer than it came only by what JSON spells out.
    if line.len() <= MAX_REQUEST {
        assert_eq!(&Request::parse(line).expect("it can be read"), request);
    }
    if let Request::Set(settings) = request {
        for device in settings.disks.iter().chain(&settings.nets) {
            if let Ok(limits) = Limits::try_from(device.limits) {
                assert_eq!(Limits::try_from(LimitsValue::from(limits)), Ok(limits));
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, said)) = data.split_first() else {
        return;
    };
    let piece = usize::from(*piece) * 64 + 1;
    let mut lines = Lines::default();
    let (mut rest, mut count) = (said, 0);
    while !rest.is_empty() && !lines.are_over() {
        // As the server reads: no more than there is room for, answered before more is taken.
        assert!(lines.room() > 0 && lines.room() <= MAX_REQUEST + 1);
        let (taken, more) = rest.split_at(rest.len().min(piece).min(lines.room()));
        lines.extend(taken);
        rest = more;
        while let Some(request) = lines.next_request() {
            count += 1;
            match request {
                Ok(request) => check(&request),
                Err(RequestError::TooLong) => assert!(lines.are_over() && lines.room() == 0),
                Err(error) => assert!(error.to_string().starts_with("not a request: ")),
            }
        }
        assert!(!lines.has_line());
    }
    if !lines.are_over() {
        // Each line was answered once.
        assert_eq!(count, said.iter().filter(|byte| **byte == b'\n').count());
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(said) {
        let line = answer.line();
        assert_eq!(serde_json::from_slice::<Answer>(&line).expect("it can be read"), answer);
    }
});
