//! When the guest begins, in the form in which `chiton` tells it.

/// What is before and behind the time.
const LINE: [&[u8]; 2] = [
    br#"{"timeline":"chiton-timeline/1","process":"guest","begin_ns":"#,
    b",\"phases\":[[\"device loop\",0]]}\n",
];

/// Says that the guest's first instruction comes now, if somebody wants to know.
pub fn first_instruction() {
    // SAFETY: a C string, and no other thread that changes the environment.
    let descriptor = unsafe { libc::getenv(c"CHITON_TIMELINE".as_ptr()) };
    if descriptor.is_null() {
        return;
    }
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is there for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let mut ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    // As many digits as the time has for the next three centuries, the last one first.
    let mut digits = [b'0'; 19];
    for digit in digits.iter_mut().rev() {
        *digit += (ns % 10) as u8;
        ns /= 10;
    }
    let used = digits.iter().position(|digit| *digit != b'0').unwrap_or(0);
    for part in [LINE[0], &digits[used..], LINE[1]] {
        // SAFETY: the text is one that `getenv` found, and the part has so many bytes.
        let _ = unsafe { libc::write(libc::atoi(descriptor), part.as_ptr().cast(), part.len()) };
    }
}
